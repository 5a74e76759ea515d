"""How much of what the base model said is kept with each row: nothing, all of it, its head, or its top entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from residua.core import DenseLogits, Encoded, Head, HeadLogits, Logits, TopLogits
from residua.core.logits import as_tensor
from residua.errors import ParameterError, StorageError
from residua.index.blocks import blocks
from residua.memory.table import Table

STORAGES = ("full", "none", "head", "top-m")
BLOCK = 2**24  # logits looked at at a time: 64 MB, where a batch of a vocabulary's would be gigabytes


class Storage(ABC):
    """Turns a batch's logits into table columns, and table columns back into ``Logits``."""

    name: str

    @abstractmethod
    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        """The columns to store for a batch."""

    @abstractmethod
    def logits(self, table: Table) -> Logits | None:
        """The stored rows' logits; None when nothing is kept."""

    def require(self, temperature: float) -> None:  # noqa: B027  (most storages serve every temperature)
        """Raise ``StorageError`` when residuals at this temperature cannot be made."""

    def to_json(self) -> dict:
        """What a manifest says of this storage."""
        return {"name": self.name}


class NoLogits(Storage):
    """Labels only: enough for label k-NN and kNN-LM."""

    name = "none"

    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        return {}

    def logits(self, table: Table) -> None:
        return None

    def require(self, temperature: float) -> None:
        raise StorageError(
            "this memory stores labels only (storage='none'), and residuals need what the model said: "
            "build it with storage='full', 'head' or 'top-m', or read it with KNNLM"
        )


class FullLogits(Storage):
    """Every logit, float32."""

    name = "full"

    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        return {"logits": batch.logits.dense()}

    def logits(self, table: Table) -> DenseLogits:
        return DenseLogits(table["logits"])


class HeadOnly(Storage):
    """No logits at all: they are recomputed from the keys through the model's last layer."""

    name = "head"

    def __init__(self, head: Head | None = None):
        self.head = head

    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        head = batch.logits.head if isinstance(batch.logits, HeadLogits) else batch.head
        if self.head is None or head is not self.head:  # what is recomputed must be what was said, in every batch
            self.head = self._checked(self.head or head, batch)
        return {}

    @staticmethod
    def _checked(head: Head | None, batch: Encoded) -> Head:
        if head is None:
            raise StorageError(
                "storage='head' needs the model's last layer, and these rows come without one (their key is not its "
                "input, or its output is not the model's): use storage='full'"
            )
        keys = as_tensor(batch.keys)
        for part, said in _dense_parts(batch.logits):
            said, again = said.cpu(), head(keys[part]).cpu()
            if not torch.allclose(said, again, rtol=1e-3, atol=1e-3 * max(1.0, float(said.abs().max()))):
                raise StorageError(
                    f"the head's logits differ from the model's by up to {float((said - again).abs().max()):.3g}: "
                    "the key is not all that the last layer sees, or it is another model's layer; "
                    "use storage='full'"
                )
        return head

    def logits(self, table: Table) -> HeadLogits:
        return HeadLogits(self.head, table["key"])


class TopM(Storage):
    """The m residual entries largest in magnitude, at one temperature; the rest read as 0 (ResMem, section 4.3).

    The label's entry is always the largest, since its magnitude is the sum of all others'; the rest are the most
    probable other classes. What is kept of them is their logits and the partition, so that a row can be relabelled.
    """

    name = "top-m"

    def __init__(self, m: int, temperature: float, classes: int | None = None):
        self.m, self.temperature, self.classes = m, temperature, classes

    def columns(self, batch: Encoded) -> dict[str, Tensor]:
        if batch.task != "classification":
            raise StorageError("storage='top-m' keeps classes; a regression memory stores 'full' predictions")
        self.classes = batch.logits.shape[1]
        labels = as_tensor(batch.labels)[:, None]
        kept = [self._kept(said, labels[part].to(said.device)) for part, said in _dense_parts(batch.logits)]
        return dict(zip(("top.ids", "top.values", "top.partition"), map(torch.cat, zip(*kept))))

    def _kept(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # The label first, whatever its logit: give it +inf for the choice alone.
        ids = logits.scatter(1, labels, torch.inf).topk(min(self.m, self.classes), dim=1).indices
        return ids.int(), logits.gather(1, ids), torch.logsumexp(logits / self.temperature, dim=1)

    def logits(self, table: Table) -> TopLogits:
        kept = table["top.ids"], table["top.values"], table["top.partition"]
        return TopLogits(*kept, self.classes, self.temperature)

    def require(self, temperature: float) -> None:
        if temperature != self.temperature:
            raise StorageError(
                f"this memory keeps the top {self.m} residuals at temperature {self.temperature}, and temperature "
                f"{temperature} was asked: read it at {self.temperature}, or build it with storage='full'"
            )

    def to_json(self) -> dict:
        return {"name": self.name, "m": self.m, "temperature": self.temperature, "classes": self.classes}


def _dense_parts(logits: Logits) -> Iterator[tuple[slice, Tensor]]:
    """A batch's dense logits in blocks of rows that stay small."""
    for part in blocks(*logits.shape, BLOCK):
        yield part, logits.rows(torch.arange(*part.indices(len(logits)))).dense()


def make_storage(name: str, *, m: int = 128, temperature: float = 1.0, classes: int | None = None) -> Storage:
    """The storage called `name`, one of ``STORAGES``; `m` and `temperature` are top-m's."""
    if name == "full":
        return FullLogits()
    if name == "none":
        return NoLogits()
    if name == "head":
        return HeadOnly()
    if name == "top-m":
        if m < 1 or not temperature > 0:
            raise ParameterError(f"top-m with m={m}, temperature={temperature}; expected m >= 1 and temperature > 0")
        return TopM(int(m), float(temperature), classes)
    raise ParameterError(f"storage={name!r}; expected one of {STORAGES}")
