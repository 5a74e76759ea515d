"""The forward hook of an attached language model: every position's key and logits in, log-probabilities out."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from residua.core import DenseLogits
from residua.errors import EncodeError, ShapeError
from residua.hooks.correction import Hooked
from residua.hooks.history import History
from residua.hooks.output import with_attribute
from residua.readers import Reader

ROWS = 2**22  # logits read at a time


class TokenCorrection(Hooked):
    """Two hooks, one that catches the keys of all positions and one that replaces the logits.

    Nothing is kept between forward passes unless the reader needs the text so far (``ContinuousCache``), so greedy
    decoding, sampling, beams and teacher forcing are one and the same to it. Padded positions, by the attention mask,
    keep the base's logits.
    """

    pool = False

    def __init__(self, model: nn.Module, reader: Reader, key: str):
        super().__init__(model, reader, key)
        self._signature = inspect.signature(model.forward)
        self._history = History()

    def __call__(self, model: nn.Module, args, kwargs, output):
        if self.resting(model):
            return None
        asked = self._signature.bind_partial(*args, **kwargs).arguments
        asked |= asked.pop("kwargs", {})
        keys, said = self.caught(), logits_in(output, asked)
        keys = keys.reshape(len(said), -1, keys.shape[-1])  # some models (OPT) run their feed-forward on flat positions
        keys, mask = _answered(keys, said, asked, model.config.is_encoder_decoder)
        with self.reading():
            changed = self._changed(keys, said, mask, asked, output)
        return _replaced(model, output, changed, asked)

    def _changed(self, keys: Tensor, said: Tensor, mask: Tensor, asked: dict, output) -> Tensor:
        """Log-probabilities float32 of the shape of `said` (b, t, V); the base's logits where `mask` (b, t) is 0."""
        vocabulary = self.reader.memory.n_outputs
        if said.shape[-1] != vocabulary:
            raise ShapeError(f"the model's vocabulary has {said.shape[-1]} tokens; its memory's has {vocabulary}")
        if self.reader.stateful:
            return self._history.changed(self.reader, keys, said, mask, _tokens_read(self._model, asked), output)
        # One contiguous copy in float32 is the answer's own room; each block of it is read and overwritten.
        changed = said.to(torch.float32, copy=True)
        flat, near = changed.view(-1, vocabulary), keys[:, -said.shape[1] :].reshape(-1, keys.shape[-1])
        rows = mask[:, -said.shape[1] :].reshape(-1).nonzero()[:, 0]
        stream = self.reader.stream()
        step = max(1, ROWS // vocabulary)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            read = stream.read(near[some], DenseLogits(flat[some]), None)
            flat[some] = read.log_probabilities().to(flat.device)
        return changed


def logits_in(output, asked: dict) -> Tensor:
    """The (b, t, V) logits of what a language model returned."""
    if isinstance(output, (tuple, list)):  # return_dict=False: a loss comes first when there were labels
        found = output[1 if asked.get("labels") is not None else 0]
    else:
        found = getattr(output, "logits", None)
    if not (isinstance(found, Tensor) and found.ndim == 3):
        raise EncodeError(
            f"the model returned {type(output).__name__} without logits of shape (batch, positions, vocabulary); "
            "attach to the model with a language modelling head, such as AutoModelForCausalLM gives"
        )
    return found


def _answered(keys: Tensor, said: Tensor, asked: dict, pairs: bool) -> tuple[Tensor, Tensor]:
    """Keys (b, t, d) and their mask (b, t), where the last positions are those the logits are of."""
    mask = asked.get("decoder_attention_mask" if pairs else "attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] >= keys.shape[1]:
        mask = mask[:, mask.shape[1] - keys.shape[1] :].bool()
    else:
        mask = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
    kept = asked.get("logits_to_keep")
    if isinstance(kept, Tensor):  # positions by number
        keys, mask = keys[:, kept], mask[:, kept]
    if keys.shape[1] < said.shape[1]:
        raise ShapeError(f"the key module gave {keys.shape[1]} positions for {said.shape[1]} of logits")
    return keys, mask.to(keys.device)


def _tokens_read(model: nn.Module, asked: dict) -> Tensor | None:
    """The tokens (b, t) at the positions that have keys; None when the model was given their embeddings."""
    if not model.config.is_encoder_decoder:
        return asked.get("input_ids")
    if asked.get("decoder_input_ids") is not None or asked.get("decoder_inputs_embeds") is not None:
        return asked.get("decoder_input_ids")
    # The model makes them by itself then: from the labels or, as BART does, from the source.
    made_of = asked["labels"] if asked.get("labels") is not None else asked["input_ids"]
    return model.prepare_decoder_input_ids_from_labels(made_of)


def _replaced(model: nn.Module, output, changed: Tensor, asked: dict):
    """A copy of `output` with these logits, and with the loss they give when there are labels."""
    labels = asked.get("labels")
    loss = None
    if labels is not None:
        vocabulary = changed.shape[-1]
        if model.config.is_encoder_decoder:
            loss = cross_entropy(changed.view(-1, vocabulary), labels.reshape(-1), ignore_index=-100)
        else:
            loss = model.loss_function(logits=changed, labels=labels, vocab_size=vocabulary)
    if isinstance(output, (tuple, list)):
        items = list(output)
        items[1 if labels is not None else 0] = changed
        if loss is not None:
            items[0] = loss
        return type(output)(items)
    output = with_attribute(output, "logits", changed)
    return output if loss is None else with_attribute(output, "loss", loss)
