"""``residua demo``: the whole journey on handwritten digits, told step by step."""

from pathlib import Path

import click

from residua.cli.output import say
from residua.printable import count, shown

PICTURE = "resmem-digits.png"
DRAWN = 5  # corrected digits in the picture

CODE = """memory = rs.Memory(rs.encode(model, train_set))
best   = rs.tune(rs.ResMem(memory), rs.encode(model, validation_set))
print(rs.evaluate(best, rs.encode(model, test_set)))"""

NEXT = """your own model    residua encode net:model net:train -o train.npz     (net.py defines model() and train())
                  residua build train.npz -o mem/     then tune, evaluate, explain
another draw      residua demo --seed 1
every verb        residua --help"""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=".", help="Folder of the picture; the current one.")
@click.option("--seed", type=click.IntRange(min=0, max=2**31 - 1), default=0, show_default=True, help="Of every draw.")
def demo(out: Path, seed: int) -> None:
    """Correct a digit classifier by its training examples.

    Trains a network that is too small for scikit-learn's handwritten digits, freezes it, remembers its training set,
    tunes on validation digits, compares on test digits that nothing has seen, and draws what was corrected. Takes
    a few seconds.
    """
    import residua as rs
    from residua.cli.digits import FILTERS, draw, load_digits, needed, train_base

    needed("matplotlib", "matplotlib", "picture")  # now rather than after the work
    digits = load_digits(seed)
    parts = train, validation, test = [digits[name] for name in ("train", "validation", "test")]
    say(f"1. Data: {len(train)} handwritten digits to train on, {len(validation)} to validate, {len(test)} to test")

    model = train_base(train, seed)
    size = sum(parameter.numel() for parameter in model.parameters())
    say(f"2. Base: a network of {FILTERS} filters and {size} parameters, too small on purpose; trained, then frozen")

    enc_train, enc_val, enc_test = (rs.encode(model, one.images, one.labels, progress=False) for one in parts)
    say(f"3. Encode: each digit becomes a key of {enc_train.dim} numbers (the last layer's input) and 10 logits")

    memory = rs.Memory(enc_train)
    say(f"4. Remember: {count(len(memory), 'row')} of {sum(memory.bytes_per_row.values())} bytes, searched exactly")

    best = rs.tune(rs.ResMem(memory), enc_val, progress=False)
    say(f"5. Tune: {len(best.results_['score']):,} settings on the validation digits, from one search")
    say(f"best there: {shown(best.best_params_)}", "   ")

    result = rs.evaluate(best, enc_test, validation=enc_val)
    say("6. Evaluate, on test digits that nothing has seen:\n")
    say(str(result), "   ")
    say()
    before, after = _percent(result.base_accuracy), _percent(result.accuracy)
    # What the neighbours' labels alone, without the model, would have said.
    own = "" if result.label_knn is None else f"{_percent(result.label_knn)} with ResMem's settings, "
    rival = f"label k-NN {own}{_percent(result.label_knn_tuned)} with its own"
    say(f"base {before} -> ResMem {after}; {rival}", "   ")

    said, now = enc_test.logits.argmax().numpy(), best.predict(enc_test)
    corrected = ((said != enc_test.labels) & (now == enc_test.labels)).nonzero()[0]
    broken = int(((said == enc_test.labels) & (now != enc_test.labels)).sum())
    chosen = corrected[:DRAWN] if len(corrected) else [0]
    whys = [rs.explain(best, enc_test[int(i)]) for i in chosen]
    which = "the first one corrected" if len(corrected) else "though none was corrected"
    say(f"\n7. Explain: test digit {chosen[0]}, {which}\n")
    say(str(whys[0]), "   ")

    path = out / PICTURE
    title = f"A memory corrects {len(corrected)} of {count(len(test), 'test digit')}, and breaks {broken}"
    p = "p < 0.0001" if result.p_value < 1e-4 else f"p = {result.p_value:.4f}"
    shows = "corrected, each beside the training digits that moved its scores most, and how far."
    subtitle = f"base {before}, with ResMem {after} ({p}).  The first {len(whys)} {shows}"
    draw(path, test.images[chosen, 0].numpy(), whys, train.images[:, 0].numpy(), title, subtitle)
    say(f"\n8. Picture: {path.resolve()}")
    say("\nThe same in Python, after import residua as rs:\n")
    say(CODE, "   ")
    say("\nNext:\n")
    say(NEXT, "   ")


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
