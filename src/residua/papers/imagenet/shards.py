"""Keys of more images than fit in memory: encoded into files, each whole or absent, so that a stopped run goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

import residua as rs
from residua.core import Encoded, HeadLogits
from residua.core.logits import as_tensor
from residua.encoding.fingerprint import source_of_module
from residua.errors import MemoryFileError, ParameterError
from residua.papers.imagenet.folder import Images
from residua.papers.record import write

ABOUT = "about.json"


def encode_shards(
    model: nn.Module,
    images: Images,
    folder: Path,
    *,
    rows: int,
    batch_size: int,
    workers: int = 0,
) -> list[Path]:
    """Encode the images into ``00000.npz``, ``00001.npz``, ... of `rows` rows each; files that are there are kept.

    Rows bear their position in the listing as id. Where the model's last layer reproduces its logits, only the layer is
    kept, and they are recomputed from the keys.

    Returns
    -------
    list of path
        In the order of the listing.

    Raises
    ------
    MemoryFileError
        When the folder holds the keys of other images, of another model or preprocessing, or other sizes of files; or
        cannot be written.
    ParameterError
        When `rows` or `batch_size` is below 1, or `workers` below 0.
    """
    if rows < 1 or batch_size < 1 or workers < 0:
        raise ParameterError(f"rows={rows}, batch_size={batch_size}, workers={workers}; expected at least 1, 1 and 0")
    _claim(model, images, folder, rows)
    paths = [folder / f"{start // rows:05d}.npz" for start in range(0, len(images), rows)]
    missing = [(i, path) for i, path in enumerate(paths) if not path.exists()]
    for i, path in tqdm(missing, desc=f"encode {folder.name}", unit="file", disable=None):
        own = range(i * rows, min((i + 1) * rows, len(images)))
        loader = DataLoader(Subset(images, own), batch_size=batch_size, num_workers=workers)
        found = rs.encode(model, loader, ids=np.arange(own.start, own.stop), progress=False)
        logits = found.logits
        if found.head is not None:
            logits = HeadLogits(found.head, as_tensor(found.keys))
        about = {"source": found.source, "task": found.task, "head": found.head}
        Encoded(found.keys, logits, found.labels, found.ids, **about).save(path)
    return paths


def load_shards(paths: list[Path]) -> Iterator[Encoded]:
    """The files' rows, one ``Encoded`` at a time."""
    for path in paths:
        yield Encoded.load(path)


def gathered(paths: list[Path]) -> Encoded:
    """All rows of the files as one ``Encoded``, with dense logits."""
    parts = list(load_shards(paths))
    first = parts[0]
    return Encoded(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.logits.dense().numpy() for part in parts]),
        np.concatenate([part.labels for part in parts]),
        source=first.source,
        task=first.task,
        head=first.head,
    )


def _claim(model: nn.Module, images: Images, folder: Path, rows: int) -> None:
    """Say whose keys the folder holds, or refuse to mix them with others."""
    about = {
        "images": images.images.digest,
        "model": source_of_module(model, "").to_json(),
        "preprocessing": json.loads(json.dumps(vars(images.preprocessing))),
        "rows": rows,
    }
    about = json.loads(json.dumps(about))
    path = folder / ABOUT
    if not path.exists():
        write(path, json.dumps(about))
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"cannot read {path} ({error}); remove the folder to encode again") from error
    differ = sorted(name for name in about if not isinstance(kept, dict) or kept.get(name) != about[name])
    if differ:
        raise MemoryFileError(
            f"{folder} holds keys of other {', '.join(differ)}; give another folder, or remove it to encode again"
        )
