"""How much of what the base model said is kept with each row: nothing, all of it, its head, or its top entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from residua.caution import warn
from residua.core import DenseLogits, Encoded, Head, HeadLogits, Logits, Readable, Rows, TopLogits, as_tensor
from residua.errors import NonFiniteError, ParameterError, StorageError
from residua.index import Index
from residua.memory.schema import Schema, labelled
from residua.memory.table import Table

_ENOUGH = 10  # rows of which a spread is known
_LOOKED_AT = 1000  # rows that are recomputed from codes before the keys go
_MUCH_LOST = 0.1  # of the logits' variance: ResNet-8 loses 1 % by 4 bits a dimension, and 18 % by 1 bit
BLOCK = 2**24  # logits looked at at a time: 64 MB, where a batch of a vocabulary's would be gigabytes


StorageName: TypeAlias = Literal["full", "none", "head", "top-m"]


class Storage(ABC):
    """Turns a batch's logits into table columns, and table columns back into ``Logits``."""

    name: StorageName
    schema: Schema
    head: Head | None

    def __init__(self, schema: Schema, head: Head | None = None):
        self.schema, self.head = schema, head

    @abstractmethod
    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        """The columns to store for a batch."""

    @abstractmethod
    def logits(self, table: Table, keys: Readable) -> Logits | None:
        """The stored rows' logits (of a regression: predictions less the targets' centre); None when not kept. `keys`
        (n, d) are theirs, less their centre, as far as they are known."""

    def require(self, temperature: float) -> None:  # noqa: B027  (most storages serve every temperature)
        """Raise ``StorageError`` when residuals at this temperature cannot be made."""

    def check_codes(self, index: Index, keys: Rows) -> None:  # noqa: B027  (most need no keys)
        """Raise ``StorageError`` when logits cannot be had from the codes that `index` holds of `keys`, all that it
        has; ``UserWarning`` where much of what they say is lost."""


NO_LOGITS = (
    "this memory stores labels only (storage='none'), and residuals need what the model said: build it with "
    "storage='full', 'head' or 'top-m', or read it with KNNLM"
)


class NoLogits(Storage):
    """Labels only: enough for label k-NN and kNN-LM."""

    name: StorageName = "none"

    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        return {}

    def logits(self, table: Table, keys: Readable) -> None:
        return None

    def require(self, temperature: float) -> None:
        raise StorageError(NO_LOGITS)


class FullLogits(Storage):
    """Every logit, float32."""

    name: StorageName = "full"

    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        given = batch.logits.table[:] if isinstance(batch.logits, DenseLogits) else batch.logits.dense()
        differences = self.schema.target_differences(given)
        if self.schema.task == "regression":
            _check_same_place(as_tensor(labelled(batch)[0]).reshape(differences.shape), differences, self.schema)
        return {"logits": differences}

    def logits(self, table: Table, keys: Readable) -> DenseLogits:
        return DenseLogits(table.rows("logits"))


def _check_same_place(targets: Tensor, predicted: Tensor, schema: Schema) -> None:
    """``NonFiniteError`` where predictions are too far from the targets for float32 to hold the targets' own spread."""
    if len(targets) < _ENOUGH:
        return
    off, spread = predicted.double().median(dim=0).values.abs(), targets.double().std(dim=0)
    if bool((lost := (off * torch.finfo(torch.float32).eps > 1e-3 * spread) & (spread > 0)).any()):
        at = int(lost.int().argmax())
        raise NonFiniteError(
            f"predictions of output {at} are typically {float(off[at]):.3g} away from the targets, which differ by "
            f"{float(spread[at]):.3g} (standard deviation): float32 cannot hold both. Are they in the same unit? If "
            "so, subtract the difference from what the model says"
        )


class HeadOnly(Storage):
    """No logits at all: they are recomputed from the keys through the model's last layer."""

    name: StorageName = "head"
    head: Head | None
    _checked: Head | None = None  # the batches' own head, once it was seen to be this one
    _moved: Head | None = None  # the head for keys as they are stored

    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        head = batch.logits.head if isinstance(batch.logits, HeadLogits) else batch.head
        if head is None or head is not self._checked:  # what is recomputed must be what was said, in every batch
            self._check(_required(self.head or head), batch)
            self.head, self._checked = self.head or head, head
        return {}

    def _check(self, head: Head, batch: Encoded) -> None:
        centred, keys = _centred_head(head, self.schema.key_centre), self.schema.centred(batch.keys)
        for part, given in _dense_parts(batch.logits):
            given, again = given.cpu(), centred(keys[part]).cpu()
            if not torch.allclose(given, again, rtol=1e-3, atol=1e-3 * max(1.0, float(given.abs().max()))):
                raise StorageError(
                    f"the head's logits differ from the model's by up to {float((given - again).abs().max()):.3g}: the "
                    "key is not all that the last layer sees, or it is another model's layer; use storage='full'"
                )

    def logits(self, table: Table, keys: Readable) -> HeadLogits:
        return HeadLogits(self._of_stored, keys)

    @property
    def _of_stored(self) -> Head:
        if self._moved is None:
            self._moved = _centred_head(_required(self.head), self.schema.key_centre, self.schema.target_centre)
        return self._moved

    def check_codes(self, index: Index, keys: Rows) -> None:
        rows = torch.arange(0, len(keys), max(1, len(keys) // _LOOKED_AT), device=keys.device)
        try:
            decoded = index.decode(rows)
        except StorageError as error:
            why = f"storage='head' recomputes the logits from the keys, and {error}"
            raise StorageError(f'{why}; keep them, use an index such as "SQ8", or store logits otherwise') from error
        said, again = self._of_stored(keys[rows]), self._of_stored(decoded)
        lost, spread = (again - said).square().sum(), (said - said.mean(dim=0)).square().sum()
        if len(rows) >= _ENOUGH and lost > _MUCH_LOST * spread:
            warn(
                f"the logits that index {index.name!r} lets recompute without the keys differ from the model's by "
                f"{float(lost / spread):.0%} of their variance: residuals will be wrong; use an index of more bytes a "
                'key, such as "SQ8"'
            )


def _required(head: Head | None) -> Head:
    if head is None:
        raise StorageError(
            "storage='head' needs the model's last layer, and these rows come without one (their key is not its "
            "input, or its output is not the model's): use storage='full'"
        )
    return head


class TopM(Storage):
    """The m residual entries largest in magnitude, at one temperature; the rest read as 0 (ResMem, section 4.3).

    The label's entry is always the largest, since its magnitude is the sum of all others'; the rest are the most
    probable other classes. What is kept of them is their logits and the partition, so that a row can be relabelled.
    """

    name: StorageName = "top-m"
    m: int
    temperature: float

    def __init__(self, schema: Schema, head: Head | None = None):
        super().__init__(schema)
        self.m, self.temperature = schema.storage["m"], schema.storage["temperature"]
        if schema.task != "classification":
            raise StorageError(f"storage='top-m' keeps classes; a {schema.task} memory stores 'full' outputs")

    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        labels = as_tensor(labelled(batch)[0])[:, None]
        kept = [self._kept(given, labels[part].to(given.device)) for part, given in _dense_parts(batch.logits)]
        return dict(zip(("top.ids", "top.values", "top.partition"), map(torch.cat, zip(*kept))))

    def _kept(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # The label first, whatever its logit: give it +inf for the choice alone.
        ids = logits.scatter(1, labels, torch.inf).topk(min(self.m, logits.shape[1]), dim=1).indices
        return ids.int(), logits.gather(1, ids), torch.logsumexp(logits / self.temperature, dim=1)

    def logits(self, table: Table, keys: Readable) -> TopLogits:
        ids, values, partition = map(table.dense, ("top.ids", "top.values", "top.partition"))
        return TopLogits(ids, values, partition, self.schema.n_outputs, self.temperature)

    def require(self, temperature: float) -> None:
        if temperature != self.temperature:
            raise StorageError(
                f"this memory keeps the top {self.m} residuals at temperature {self.temperature}, and temperature "
                f"{temperature} was asked: read it at {self.temperature}, or build it with storage='full'"
            )


STORAGES: dict[str, type[Storage]] = {kind.name: kind for kind in (FullLogits, NoLogits, HeadOnly, TopM)}


def describe_storage(name: str, *, m: int = 128, temperature: float = 1.0) -> dict[str, Any]:
    """A storage in JSON types, one of ``STORAGES``; `m` and `temperature` are top-m's."""
    if name not in STORAGES:
        raise ParameterError(f"storage={name!r}; expected one of {tuple(STORAGES)}")
    if name != "top-m":
        return {"name": name}
    if m < 1 or not temperature > 0:
        raise ParameterError(f"top-m with m={m}, temperature={temperature}; expected m >= 1 and temperature > 0")
    return {"name": name, "m": int(m), "temperature": float(temperature)}


def make_storage(schema: Schema, head: Head | None = None) -> Storage:
    """The storage that a schema describes; `head` is the one that an earlier batch brought."""
    return STORAGES[schema.storage["name"]](schema, head)


def _dense_parts(logits: Logits) -> Iterator[tuple[slice, Tensor]]:
    """A batch's dense logits in blocks of rows that stay small."""
    step = max(1, BLOCK // logits.shape[1])
    for start in range(0, len(logits), step):
        part = slice(start, start + step)
        yield part, logits.rows(part).dense()


def _centred_head(head: Head, key_centre: Tensor, target_centre: Tensor | None = None) -> Head:
    """The head that gives the same for keys less their centre (less the targets' centre)."""
    if not key_centre.any() and (target_centre is None or not target_centre.any()):
        return head
    move = torch.cat([rows.cpu().double() @ key_centre for rows in head.weight.split(4096)])
    move -= 0 if target_centre is None else target_centre
    return Head(head.weight, (move if head.bias is None else head.bias.cpu().double() + move).to(head.weight.device))
