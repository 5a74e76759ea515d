import json
import shlex
from pathlib import Path

import numpy as np

from residua.cli.output import command, report, say


def test_say_keeps_lines_apart_and_indents_them(capsys):
    say("a\nb\x1b\n", "  ")
    assert capsys.readouterr().out == "  a\n  b\\x1b\n\n"


def test_report_prints_one_or_the_other(capsys):
    report({"a": np.arange(2), "name": "\x1b"}, "text", True)
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": [0, 1], "name": "\x1b"} and "\x1b" not in out
    report({"a": 1}, "text", False)
    assert capsys.readouterr().out == "text\n"


def test_what_to_type_next_is_on_stderr_and_not_for_machines(capsys):
    report({}, "text", False, ["first", "second\x1b"])
    assert capsys.readouterr() == ("text\n", "next: first\n      second\\x1b\n")
    report({}, "text", True, ["first"])
    assert capsys.readouterr().err == ""


def test_a_command_can_be_typed():
    line = command("tune", Path("my mem"), "--text", "it's", "--row", 3, why="so")
    assert line.endswith("  # so")
    assert shlex.split(line, comments=True) == ["residua", "tune", "my mem", "--text", "it's", "--row", "3"]
