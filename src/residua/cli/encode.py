"""``residua encode``: a model and data become an .npz of keys, logits and labels."""

import logging
from pathlib import Path

import click

from residua.cli.collections import COLLECTIONS, classifier_of
from residua.cli.loaders import check_npz, data_named, made_as, model_named
from residua.cli.options import FILE, json_option, trust_option, trusted
from residua.cli.output import command, report
from residua.cli.store import checked
from residua.cli.verbosity import progress
from residua.errors import InputError, MemoryFileError
from residua.folder import MANIFEST

log: logging.Logger = logging.getLogger(__name__)

TASKS = ("classification", "regression", "multi-label")
KINDS = ("logits", "log-probabilities", "probabilities", "percentages", "predictions")  # as rs.encode's output=


@click.command()
@click.argument("model")
@click.argument("data", required=False)
@click.option("-o", "--output", type=FILE, required=True, help="The .npz file to write.")
@click.option("--checkpoint", type=FILE, help="timm: a file of weights for the model.")
@click.option("--key", help="Module whose output (or, as NAME:input, input) is the key.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows per forward pass.")
@click.option("--like", type=FILE, help="Encode as this memory or encoded .npz was: same key, same scaling.")
@click.option("--cv", type=click.IntRange(min=2), help="Folds for out-of-fold logits (scikit-learn estimators).")
@trust_option
@click.option("--task", type=click.Choice(TASKS), help="Inferred from the labels when left out.")
@click.option(
    "--kind",
    metavar="KIND|ITEM",
    default="auto",
    help=f"What the model's outputs are ({', '.join(KINDS)}), an item of what it returns, or none (an embedder).",
)
@click.option("--new-classes", is_flag=True, help="Labels may name classes that the model has no output for.")
@json_option
def encode(
    model, data, output: Path, checkpoint, key, batch_size, like, cv, task, kind: str, new_classes: bool, as_json: bool
) -> None:
    """Run a trained model over data and keep keys, logits and labels.

    MODEL is module:factory; the factory takes nothing and gives the model, or a pair (model, data). DATA is
    module:factory for a dataset, a loader or a pair (X, y), or an .npz with arrays x and y.

    MODEL is timm:NAME (with --checkpoint, or its own weights are downloaded) or hf:FOLDER, a transformers classifier
    that save_pretrained wrote. DATA then is a folder of pictures: a folder for each class, or pictures without labels;
    or for hf: a .csv (.tsv) file of texts: a column text, or a pair of columns, and a column label or none.

    \b
    Examples:
      residua encode net:model net:train -o train.npz
      residua encode net:model pictures.npz -o train.npz --key layer4
      residua encode net:model net:test -o test.npz --like mem/
      residua encode net:model net:train -o train.npz --kind probabilities
      residua encode timm:resnet18 images/train -o train.npz --checkpoint resnet18.pt
      residua encode hf:bert/ reviews.csv -o train.npz
    """
    if output.is_dir():
        kind = "a memory" if (output / MANIFEST).exists() else "a folder"
        raise InputError(f"{output} is {kind}; expected the name of an .npz file to write")
    if not output.parent.is_dir():
        raise MemoryFileError(f"cannot write {output}: there is no folder {output.parent}; make it first")
    if data is not None and data.endswith(".npz"):
        check_npz([Path(data)])
    if like is not None and like.is_dir():
        checked(like)
    elif like is not None:
        check_npz([like])
    labels = ids = None
    if model.partition(":")[0] in COLLECTIONS:
        if data is None:
            raise InputError(f"{model} was given no DATA; expected a folder of pictures, or a .csv of texts for hf:")
        source, examples = classifier_of(model, Path(data), checkpoint, kind == "none")
    elif checkpoint is not None:
        raise InputError(f"--checkpoint {checkpoint} is for timm's models, and {model!r} is none of them")
    else:
        source, examples = model_named(model)
        examples, labels, ids = (examples, None, None) if data is None else data_named(data)
    from residua.encoding import encode as encode_data

    if examples is None:
        raise InputError(f"{model!r} gives a model without data; name the data too: residua encode {model} DATA")
    picked = None if kind == "none" else int(kind) if kind.lstrip("-").isdecimal() else kind
    how = {
        "output": picked,
        "key": key,
        "batch_size": batch_size,
        "cv": cv,
        "task": task,
        "like": made_as(like, trusted()),
    }
    how["new_classes"] = new_classes
    enc = encode_data(source, examples, labels, ids=ids, progress=progress(), **how)
    enc.save(output)
    key = enc.source and enc.source.key
    log.info("made by %s; the key is %r", type(source).__name__, key)
    about = {"rows": len(enc), "dim": enc.dim, "outputs": enc.n_outputs, "task": enc.task}
    about |= {
        "labels": enc.labels is not None,
        "key": key,
        "kind": enc.source and enc.source.output,
        "output": str(output),
    }
    then = [] if enc.labels is None else [command("build", output, "-o", "mem/", why="or keep it to tune or test on")]
    report(about, f"{output}: {enc}, key {key}", as_json, then)
