"""``residua demo``: the whole journey on handwritten digits, told step by step."""

from pathlib import Path

import click

from residua.cli.loaders import needed
from residua.cli.options import json_option
from residua.cli.output import command, report, say
from residua.cli.verbosity import is_quiet, progress
from residua.errors import MemoryFileError
from residua.printable import count, shown

EXTRAS = "sklearn,plot"
PICTURE = "resmem-digits.png"
DRAWN = 5  # corrected digits in the picture

CODE = """
The same in Python, after import residua as rs:

   memory = rs.Memory(rs.encode(model, train_set))
   best   = rs.tune(rs.ResMem(memory), rs.encode(model, validation_set))
   print(rs.evaluate(best, rs.encode(model, test_set)))"""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=".", help="Folder of the picture; the current one.")
@click.option("--seed", type=click.IntRange(min=0, max=2**31 - 1), default=0, show_default=True, help="Of every draw.")
@json_option
def demo(out: Path, seed: int, as_json: bool) -> None:
    """Correct a digit classifier by its training examples.

    Trains a network that is too small for scikit-learn's handwritten digits, freezes it, remembers its training set,
    tunes on validation digits, compares on test digits that nothing has seen, and draws what was corrected. Takes
    a few seconds.

    \b
    Examples:
      residua demo
      residua demo --seed 1 --out pictures/
    """
    needed("sklearn", "the demo, for its digits,", EXTRAS)  # now rather than after the work
    needed("matplotlib", "the demo, for its picture,", EXTRAS)
    import residua as rs
    from residua.cli.digits import FILTERS, load_digits, train_base
    from residua.explanation import plot

    tell = (lambda *_: None) if as_json or is_quiet() else say
    digits = load_digits(seed)
    parts = train, validation, test = [digits[name] for name in ("train", "validation", "test")]
    tell(f"1. Data: {len(train)} handwritten digits to train on, {len(validation)} to validate, {len(test)} to test")

    model = train_base(train, seed)
    size = sum(parameter.numel() for parameter in model.parameters())
    tell(f"2. Base: a network of {FILTERS} filters and {size} parameters, too small on purpose; trained, then frozen")

    enc_train, enc_val, enc_test = (rs.encode(model, one.images, one.labels, progress=progress()) for one in parts)
    tell(f"3. Encode: each digit becomes a key of {enc_train.dim} numbers (the last layer's input) and 10 logits")

    memory = rs.Memory(enc_train)
    tell(f"4. Remember: {count(len(memory), 'row')} of {sum(memory.bytes_per_row.values())} bytes, searched exactly")

    best = rs.tune(rs.ResMem(memory), enc_val, progress=progress())
    tell(f"5. Tune: {len(best.results_['score']):,} settings on the validation digits, from one search")
    tell(f"best there: {shown(best.best_params_)}", "   ")

    result = rs.evaluate(best, enc_test, validation=enc_val, progress=progress())
    tell("6. Evaluate, on test digits that nothing has seen:\n")
    tell(str(result), "   ")
    tell()
    data = {"seed": seed, **result.to_dict()}
    before, after = _percent(data["base_accuracy"]), _percent(data["accuracy"])
    # What the neighbours' labels alone, without the model, would have said.
    own = "" if data["label_knn"] is None else f"{_percent(data['label_knn'])} with ResMem's settings, "
    rival = f"label k-NN {own}{_percent(data['label_knn_tuned'])} with its own"
    tell(f"base {before} -> ResMem {after}; {rival}", "   ")

    said, now = enc_test.logits.argmax().numpy(), best.predict(enc_test)
    corrected = ((said != enc_test.labels) & (now == enc_test.labels)).nonzero()[0]
    broken = int(((said == enc_test.labels) & (now != enc_test.labels)).sum())
    chosen = corrected[:DRAWN] if len(corrected) else [0]
    whys = [rs.explain(best, enc_test[int(i)]) for i in chosen]
    which = "the first one corrected" if len(corrected) else "though none was corrected"
    tell(f"\n7. Explain: test digit {chosen[0]}, {which}\n")
    tell(str(whys[0]), "   ")

    path = out / PICTURE
    title = f"A memory corrects {len(corrected)} of {count(len(test), 'test digit')}, and breaks {broken}"
    p = "p < 0.0001" if result.p_value < 1e-4 else f"p = {result.p_value:.4f}"
    shows = "corrected, each beside the training digits that moved its scores most, and how far."
    subtitle = f"base {before}, with ResMem {after} ({p}).  The first {len(whys)} {shows}"
    ink = 1 - train.images, [1 - test.images[int(i)] for i in chosen]  # dark on white
    _write(plot(whys, *ink, title=title, subtitle=subtitle), path)
    tell(f"\n8. Picture: {path.resolve()}")
    data |= {"corrected": len(corrected), "broken": broken, "picture": str(path.resolve())}
    own = command("encode", "net:model", "net:train", "-o", "train.npz", why="yours: net.py has model() and train()")
    then = [own, command("demo", "--seed", seed + 1, why="another draw"), "residua --help  # every verb"]
    report(data, f"{result}\n\n{path.resolve()}" if is_quiet() else CODE, as_json, then)


def _write(picture, path: Path) -> None:
    from residua.core.atomic import atomic_write

    try:
        with atomic_write(path) as part:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.savefig(part, format="png", dpi=130)
    except MemoryFileError as error:
        raise MemoryFileError(f"{error}; choose another folder with --out") from error


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
