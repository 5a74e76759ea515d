"""``residua info``: what a memory folder holds, as its manifest says it; arrays and torch are not needed for it."""

from pathlib import Path

import click

from residua.cli.options import indexed, json_option, memory_argument, trusted
from residua.cli.output import report
from residua.cli.store import bytes_in, checked, next_step
from residua.folder import named_files, present, reader_in
from residua.printable import short, shown_memory, size


@click.command()
@memory_argument
@json_option
def info(memory: Path, as_json: bool) -> None:
    """Say what a memory holds, and whose it is.

    All its files must be there and as large as they were written; that their content is whole is checked when a verb
    reads them.

    \b
    Examples:
      residua info mem/
      residua info mem/ --json
    """
    manifest = checked(memory)
    for file in named_files(manifest):
        present(memory, file)
    reader = reader_in(memory, manifest)
    data = manifest["summary"] if "summary" in manifest else _by_loading(memory)
    data |= {"bytes_on_disk": bytes_in(memory)}
    data["reader"] = reader and {"name": reader["reader"], "params": reader["params"]}
    lines = shown_memory(data) | {"on disk": size(data["bytes_on_disk"])}
    lines["reader"] = short(reader) if reader else "none saved; run residua tune"
    width = max(map(len, lines))
    table = [f"  {name:<{width}}  {value}" for name, value in lines.items()]
    report(data, "\n".join([str(memory), *table]), as_json, [next_step(memory, "documents" in data)])


def _by_loading(path: Path) -> dict:
    """The same of a memory that was saved before manifests said it."""
    from residua.memory import Memory
    from residua.memory.summary import summary

    return summary(Memory.load(path, index=indexed(), trust=trusted()))
