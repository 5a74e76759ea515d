"""``make headline``: the README's first screen, run again: what a code model writes without and with seaborn's source.

``python examples/headline.py FOLDER``: FOLDER/source holds seaborn (``pip install --no-deps --target FOLDER/source
seaborn==0.13.2``). The steps are the README's commands; those that were done before are not done again. Prints both
texts, and writes them to FOLDER/headline.json, with how many of the parameters are barplot's own.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

from residua.cli.store import has_reader

HERE = Path(__file__).resolve().parent
PROMPT = "def barplot("
FUNCTION = PROMPT[4:-1]


def run(arguments: list) -> str:
    """What ``residua`` prints."""
    command = [sys.executable, "-m", "residua", *map(str, arguments)]
    print("$ residua", *map(str, arguments), file=sys.stderr)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def names(tree: ast.FunctionDef) -> list[str]:
    """A function's parameters, in their order."""
    given = tree.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [one.arg for one in named if one is not None]


def signatures(folder: Path) -> dict[str, list[str]]:
    """Every function of a folder of source, and its parameters."""
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.py")))
    return {node.name: names(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def parameters(text: str) -> list[str]:
    """Those of the function that a text begins with; none where it does not close its brackets.

    >>> parameters("def f(a, *, b=(1, 2), **rest):\\n    # and so on")
    ['a', 'b', 'rest']
    >>> parameters("def f(a, b")
    []
    """
    for end in (found.end() for found in re.finditer(r"\):", text)):
        try:
            (tree,) = ast.parse(text[:end] + " ...").body
        except SyntaxError:
            continue
        return names(tree) if isinstance(tree, ast.FunctionDef) else []
    return []


def main(folder: Path) -> None:
    source, memory, model = folder / "source" / "seaborn", folder / "mem", HERE / "models" / "code-gpt2"
    if not (memory / "manifest.json").is_file():
        run(["build", "--text", source, "--glob", "**/*.py", "--model", model, "-o", memory, "--window", 256])
    if not has_reader(memory):
        run(["tune", memory, "--reader", "gated"])
    said = json.loads(run(["generate", memory, PROMPT, "--max-new-tokens", 150, "--json"]))
    real = signatures(source)
    found = {"command": "make headline", "prompt": PROMPT, "of_the_function": len(real[FUNCTION])}
    for name in ("base", "memory"):
        text = PROMPT + said[name]["text"]
        given = parameters(text)
        found[name] = {
            "text": text,
            "parameters": len(given),
            "of_the_function": len({*given} & {*real[FUNCTION]}),
            "same_as": [other for other, own in real.items() if own == given and given],
        }
        own = found[name]["of_the_function"]
        print(f"\n{text.rstrip()}\n\n   {len(given)} parameters, of which {own} are {FUNCTION}'s own")
    (folder / "headline.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
