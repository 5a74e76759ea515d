"""The forward hook of an attached classifier or regressor: key and logits in, what the memory makes of them out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from residua.core import DenseLogits
from residua.encoding.torch import logits_of_output
from residua.errors import ShapeError
from residua.hooks.hooked import Hooked
from residua.hooks.output import with_logits
from residua.readers import Reader

TINY = torch.finfo(torch.float32).tiny  # a probability that underflowed still has a finite logarithm


class Correction(Hooked):
    """One row of keys and logits per example; the model's output comes back with the memory's scores."""

    def __call__(self, model: nn.Module, args, kwargs, output):
        if self.resting(model):
            return None
        keys = self.caught()
        if not len(keys):
            return None
        said = logits_of_output(output, len(keys))
        with self.reading():
            return with_logits(output, self.corrected(self.reader, keys, said))

    def corrected(self, reader: Reader, keys: Tensor, said: Tensor) -> Tensor:
        """Log-probabilities (or predictions) float32 of the width of `said` (n, L), on the memory's device."""
        memory = reader.memory
        classification = memory.task == "classification"
        logits = said.to(memory.device, torch.float32)
        lone = classification and said.shape[1] == 1
        if lone:  # a lone logit s is the two columns [0, s], and comes back as their log-odds
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        if logits.shape[1] != memory.n_outputs:
            raise ShapeError(f"the model gave {said.shape[1]} outputs; its memory has {memory.n_outputs}")
        scores, base = reader.combine(keys, DenseLogits(logits))
        if not classification:
            return scores
        log_p = reader.probabilities(scores, base).clamp_min_(TINY).log_()
        return log_p[:, 1:] - log_p[:, :1] if lone else log_p
