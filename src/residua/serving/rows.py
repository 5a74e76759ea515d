"""What a row is to those who ask: numbers that the model reads, a text, or a key and logits that they bring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import nn

from residua.core import Encoded
from residua.core.source import KEYS_ONLY
from residua.encoding import TextEncoder, TokenBatch, text_encoder
from residua.encoding.again import CheckedModel
from residua.encoding.item import FUNCTION
from residua.encoding.language_model import LanguageEncoder
from residua.errors import EncodeError, ResiduaError
from residua.hooks import attach
from residua.memory import Memory
from residua.readers import Reader
from residua.serving import fields
from residua.serving.fields import Field

TEXT = 2**16  # characters of a text that is asked about
NAME = 1000  # of a name


class Rows(ABC):
    """The one way in which rows come to a server."""

    asked: Mapping[str, Field]  # of a row that is asked about

    @abstractmethod
    def encoded(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """Rows, checked before, as a reader takes them; ``InputError`` or ``EncodeError`` for what does not fit."""


class Given(Rows):
    """Keys, and what the model said there: the caller has the model."""

    asked: Mapping[str, Field]
    kind: Literal["logits", "predictions"]

    def __init__(self, memory: Memory):
        self.kind = "predictions" if memory.task == "regression" else "logits"
        outputs = memory.schema.model_outputs or memory.n_outputs
        self.asked = {
            "key": fields.numbers((memory.dim,)).described(
                "The input of the model's last layer, or what made the key."
            ),
            "logits": fields.numbers((outputs,)).described("What the model says; a regression's predictions."),
        }

    def encoded(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """As ``Rows.encoded``."""
        keys, said = (np.array([row[name] for row in rows], np.float64) for name in ("key", "logits"))
        return Encoded(keys, said, output=self.kind)


class Numbers(Rows):
    """What a torch module or an estimator takes of one example.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator
    reader : Reader
        Of a memory that the model made; another one is refused here where that can be seen without an example.
    shape : sequence of int, optional
        Of one example: others are then refused before the model sees them, and the model is compared at once.
    """

    asked: Mapping[str, Field]
    read: CheckedModel

    def __init__(self, model: Any, reader: Reader, shape: Sequence[int] | None = None):
        width = getattr(model, "n_features_in_", None)
        shape = (int(width),) if shape is None and width is not None else shape
        self.asked = {"input": fields.numbers(shape).described("One example, as the model takes it (float32).")}
        self.read = CheckedModel(model, reader)
        source = reader.memory.source
        if (
            isinstance(model, nn.Module)
            and source is not None
            and source.output != KEYS_ONLY
            and source.item != FUNCTION
        ):
            attach(model, reader).detach()
        if shape is not None:
            self.encoded([{"input": np.zeros(shape).tolist()}])

    def encoded(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """As ``Rows.encoded``."""
        try:
            return self.read(np.array([row["input"] for row in rows], np.float32))
        except ResiduaError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            # Of a model that is given another shape, or other numbers, than it takes; what it says may quote them.
            raise EncodeError(
                f"the model could not read this ({type(error).__name__}): is it of the right shape?"
            ) from error


class Texts(Rows):
    """Texts, of which the next token is asked for."""

    asked: Mapping[str, Field]
    encoder: LanguageEncoder
    is_causal: bool

    def __init__(self, model: tuple[Any, Any], reader: Reader):
        self.asked = {"text": fields.text(TEXT, 1).described("What comes before the token that is asked for.")}
        self.encoder = text_encoder(*model, like=reader)
        self.is_causal = isinstance(self.encoder, TextEncoder)

    def encoded(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """As ``Rows.encoded``."""
        windows = [window for row in rows for window in self.encoder.last_row(row["text"]).windows[-1:]]
        made = self.encoder.encode(TokenBatch(windows))
        found = made[np.cumsum([len(window.targets) for window in windows]) - 1]
        found.labels = found.ids = None
        return found
