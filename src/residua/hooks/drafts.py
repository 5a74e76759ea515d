"""Drafts from the memory: what it says next is proposed in one go, and the model takes what it would have said.

For transformers' assisted decoding, where `Drafts` stands in for the smaller model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.errors import InputError, MissingDependencyError, ParameterError
from residua.memory import Memory
from residua.memory.suffixes import DEPTH, Suffixes, goes_on, match_itself

try:
    from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
    from transformers.generation.utils import GenerateDecoderOnlyOutput
except ImportError as error:
    raise MissingDependencyError('drafts are of transformers models: pip install "residua[lm]"') from error


class Drafts(PreTrainedModel, GenerationMixin):
    """Takes the place of an assistant model: ``model.generate(..., assistant_model=drafts)``; see ``rs.lm.draft``.

    It has no parameters, and of a model's methods only ``generate``.

    Attributes
    ----------
    memory : Memory
    """

    memory: Memory

    def __init__(self, memory: Memory, tokens: int = DEPTH):
        if not memory.schema.is_text:
            raise InputError("this memory is not of tokens: its rows have no order; build one of text: rs.lm.remember")
        if not isinstance(tokens, int) or tokens < 1:
            raise ParameterError(f"tokens={tokens!r}; expected how many may be drafted at a time, an integer >= 1")
        tells: dict[str, Any] = {"vocab_size": memory.n_outputs}
        super().__init__(PretrainedConfig(**tells))
        # As many each time: how far a draft is worth it says the length of its match.
        fixed: dict[str, Any] = {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}
        self.generation_config = GenerationConfig(num_assistant_tokens=tokens, **fixed)
        self.memory = memory
        self._made: tuple[int, Suffixes] | None = None  # of which version of the memory

    @property
    def device(self) -> torch.device:
        """The CPU, where suffixes are looked up."""
        return torch.device("cpu")

    @property
    def suffixes(self) -> Suffixes:
        """Those of the memory as it is now; made when they are first asked for, and after each edit."""
        now, made = self.memory.now, self._made
        if made is None or made[0] != now.version:
            made = self._made = (now.version, Suffixes(now))
        return made[1]

    def draft(self, text: list[int], most: int) -> list[int]:
        """At least one token, and at most `most`, that may come after `text`."""
        own = np.array(text)
        said, (places, length) = own, match_itself(own)
        suffixes = self.suffixes
        found = suffixes.match(text)
        if found[1] > length:
            said, (places, length) = suffixes.text, found
        return goes_on(said, places, max(1, min(length, most))) or text[-1:]

    @torch.no_grad()
    def generate(self, input_ids: Tensor, max_new_tokens: int, **_: Any) -> Any:  # pyright: ignore
        """Up to `max_new_tokens` after a text (1, t), each with all probability, as an assistant model returns them."""
        new = torch.tensor([self.draft(input_ids[0].tolist(), max_new_tokens)])
        scores = torch.full((new.shape[1], 1, self.config.vocab_size), -torch.inf)
        scores.scatter_(2, new.view(-1, 1, 1), 0.0)
        made: dict[str, Any] = {"sequences": torch.cat([input_ids, new], dim=1), "scores": tuple(scores)}
        return GenerateDecoderOnlyOutput(**made)
