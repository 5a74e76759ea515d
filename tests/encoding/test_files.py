"""Which files a path stands for, their names, and what is read of them."""

import os
import subprocess

import pytest

from residua.encoding.files import find, read
from residua.errors import InputError


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def names(*paths, **options):
    return [file.name for file in find(paths, **options)]


def test_a_folder_is_its_files_sorted(tmp_path):
    write(tmp_path, dict.fromkeys(["b.py", "a/z.py", "a/b/c.py", "notes.md"], "x"))
    assert names(tmp_path) == names(str(tmp_path)) == ["a/b/c.py", "a/z.py", "b.py", "notes.md"]
    assert names(tmp_path, glob="**/*.py") == ["a/b/c.py", "a/z.py", "b.py"]
    with pytest.raises(InputError, match=r"no file in .* matches glob='\*\.rst'"):
        find([tmp_path], glob="*.rst")


def test_names_begin_at_one_root(tmp_path, monkeypatch):
    write(tmp_path, dict.fromkeys(["src/a.py", "src/deep/b.py", "test/a.py", "top.md"], "x"))
    monkeypatch.chdir(tmp_path)
    assert names("src/a.py") == ["a.py"]
    assert names("src/deep/b.py", "src/a.py") == ["deep/b.py", "a.py"]
    assert names("src", "test") == ["src/a.py", "src/deep/b.py", "test/a.py"]
    assert names("src", "top.md") == ["src/a.py", "src/deep/b.py", "top.md"]
    assert names("src/../src/./a.py", tmp_path / "test") == ["src/a.py", "test/a.py"]
    assert names("src/deep", root=".") == names("src/deep/b.py", root=tmp_path) == ["src/deep/b.py"]
    with pytest.raises(InputError, match=r"is not inside root='src'"):
        find(["test/a.py"], root="src")


def test_hidden_and_ignored_files_are_left_out(tmp_path):
    """As git itself says."""
    write(
        tmp_path,
        {
            ".gitignore": "build/\n*.log\n!keep.log\n/only-top.txt\n# no rule\n!\n[z-a]\n",
            "a.py": "x",
            "build/out.py": "x",
            "deep/build/out.py": "x",
            "b.log": "x",
            "keep.log": "x",
            "only-top.txt": "x",
            "deep/only-top.txt": "x",
            "deep/.gitignore": "secret*\n!b.log\n",
            "deep/secret.py": "x",
            "deep/b.log": "x",
            "deep/inside/secret.py": "x",
            ".env": "x",
            "deep/.cache/x.py": "x",
        },
    )
    kept = ["a.py", "deep/b.log", "deep/only-top.txt", "keep.log"]
    assert names(tmp_path) == kept
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    told = ["git", "-C", tmp_path, "ls-files", "--others", "--exclude-standard"]
    listed = subprocess.run(told, capture_output=True, text=True, check=True).stdout.split()
    assert kept == sorted(name for name in listed if not any(part.startswith(".") for part in name.split("/")))
    assert names(tmp_path) == kept and {"build/out.py", ".env"} < set(names(tmp_path, hidden=True))
    assert names(tmp_path / "deep") == ["b.log", "only-top.txt"]  # by the rules above it too
    assert names(tmp_path / "build") == ["out.py"] and names(tmp_path / ".env") == [".env"]  # asked for by its name
    with pytest.raises(
        InputError, match=r"match glob='\*\.txt', all of them hidden or ignored by git; pass hidden=True"
    ):
        find([tmp_path], glob="*.txt")


def test_a_folder_in_a_hidden_one_is_read(tmp_path):
    write(tmp_path, {".config/a.txt": "x", ".config/.b": "x"})
    assert names(tmp_path / ".config") == ["a.txt"]


CONTENTS = {
    "bom.txt": ("\ufeffé\r\n".encode(), "é\r\n"),
    "latin.txt": (b"caf\xe9!", "caf\ufffd!"),
    "null.txt": (b"a\0b", "a\0b"),
    "object": (b"x\x01K\xca\xc9OR0c\xe0\x02", None),
    "utf16.txt": ("é".encode("utf-16"), "é"),
    "utf32.txt": ("é".encode("utf-32"), "é"),
    "wide.txt": ("ab".encode("utf-16-le"), "a\0b\0"),
}
BINARY = ["null.txt", "object", "wide.txt"]


def texts(*paths, errors="strict"):
    left_out = []
    return dict(read(find(paths), errors, left_out)), left_out


def test_what_is_in_a_file(tmp_path):
    write(tmp_path, {name: data for name, (data, _) in CONTENTS.items()})
    for name, (_, text) in CONTENTS.items():
        if text is not None:
            assert texts(tmp_path / name, errors="replace") == ({name: text}, [])
    for name in ("bom.txt", "utf16.txt", "utf32.txt"):
        assert texts(tmp_path / name) == ({name: CONTENTS[name][1]}, [])
    for name, said in {
        "latin.txt": "is not UTF-8: byte 0xe9 at position 3; pass errors='replace'",
        "wide.txt": "NUL",
    }.items():
        with pytest.raises(InputError, match=said):
            texts(tmp_path / name)
        assert texts(tmp_path / name, errors="skip") == ({}, [name])


def test_a_folders_binary_files_stop_nothing(tmp_path):
    write(tmp_path, {name: data for name, (data, _) in CONTENTS.items()})
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8"):  # a text, as far as one can tell
        texts(tmp_path)
    found, left_out = texts(tmp_path, errors="replace")
    assert found == {name: text for name, (_, text) in CONTENTS.items() if name not in BINARY} and left_out == BINARY
    assert texts(tmp_path, errors="skip")[1] == sorted([*BINARY, "latin.txt"])


def test_broken_utf16_is_binary(tmp_path):
    write(tmp_path, {"a": b"\xff\xfe\x00\xd8\x00\xd8", "b": "text"})
    assert texts(tmp_path) == ({"b": "text"}, ["a"])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(tmp_path):
    write(tmp_path, {"a": "x", "b": "text"})
    (tmp_path / "a").chmod(0)
    with pytest.raises(InputError, match=r"cannot read .*a: Permission denied"):
        texts(tmp_path)
    assert texts(tmp_path, errors="skip") == ({"b": "text"}, ["a"])


def test_a_size_leaves_out_what_is_binary(tmp_path):
    write(tmp_path, {name: data for name, (data, _) in CONTENTS.items()})
    sizes = {file.name: file.size for file in find([tmp_path])}
    assert sizes["null.txt"] == 0 and sizes["latin.txt"] == 5 and sizes["utf16.txt"] == 4
