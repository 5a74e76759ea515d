"""How a text goes on with a memory, or without: prompts that arrive together are generated as one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from residua.encoding import TextEncoder, text_encoder
from residua.encoding.language_model import position_limit
from residua.errors import ParameterError, TaskError
from residua.hooks import attach
from residua.serving.tenants import Tenant

COLD = 0.01  # at lower temperatures the likeliest token is taken, which is what they mean, and nothing overflows


@dataclass(frozen=True)
class Prompt:
    """One text that is to go on, and how."""

    text: str
    tenant: Tenant | None  # None: the model alone
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        return self.temperature >= COLD

    @property
    def together(self) -> tuple[Any, ...]:
        """What prompts have in common that may be one batch: sampling draws its own numbers, and is one by itself."""
        return id(self.tenant), id(self) if self.samples else None


@dataclass(frozen=True)
class Completion:
    """What was written, and why it ends."""

    text: str
    finish_reason: str  # "stop" or "length"
    prompt_tokens: int
    completion_tokens: int


class Writer:
    """A language model that writes with the memory of whoever asks; one thread at a time.

    Parameters
    ----------
    model, tokenizer
        A causal transformers model.
    tenants : sequence of Tenant
        Memories of it: that they are is checked here.
    seconds : float
        The most that one batch may take; what is written until then is given.
    """

    model: Any
    tokenizer: Any
    seconds: float
    encoder: TextEncoder
    limit: int | None
    pad: int
    ends: set[int]

    def __init__(self, model: Any, tokenizer: Any, tenants: Sequence[Tenant], seconds: float):
        self.model, self.tokenizer, self.seconds = model, tokenizer, seconds
        encoder = text_encoder(model, tokenizer, like=tenants[0].reader)
        if not isinstance(encoder, TextEncoder):
            raise TaskError("completions are of causal language models; this one is an encoder-decoder")
        self.encoder, self.limit = encoder, position_limit(model)
        ends = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad = next(one for one in ends if one is not None)
        self.ends = _ends(model, tokenizer)
        self._handle = attach(model, tenants[0].reader)
        for tenant in tenants:
            self._handle.reader = tenant.reader

    def close(self) -> None:
        """Give the model back as it was."""
        self._handle.detach()

    def disabled(self) -> Any:
        """A ``with`` block in which the model is itself, to be encoded with."""
        return self._handle.disabled()

    def tokens(self, prompt: Prompt) -> list[int]:
        """A prompt's tokens; ``ParameterError`` where there is no room for what is to come."""
        tokens = self.encoder.prompt(prompt.text)["input_ids"][0].tolist()
        if self.limit is not None and len(tokens) + prompt.max_tokens > self.limit:
            raise ParameterError(
                f"the prompt's {len(tokens)} tokens and max_tokens={prompt.max_tokens} are more than the model's "
                f"{self.limit} positions; ask for fewer, or shorten the prompt"
            )
        return tokens

    def write(self, prompts: Sequence[Prompt]) -> list[Completion | Exception]:
        """How each prompt goes on, or why it does not."""
        found: list[Completion | Exception | None] = [None] * len(prompts)
        groups: dict[tuple[Any, ...], list[tuple[int, list[int]]]] = {}
        for place, prompt in enumerate(prompts):
            try:
                groups.setdefault(prompt.together, []).append((place, self.tokens(prompt)))
            except Exception as error:  # noqa: BLE001 (its asker gets it)
                found[place] = error
        for group in (part for whole in groups.values() for part in self._fitting(prompts, whole)):
            try:
                done = self._written([prompts[place] for place, _ in group], [tokens for _, tokens in group])
            except Exception as error:  # noqa: BLE001 (all of the group get it)
                done = [error] * len(group)
            for (place, _), one in zip(group, done, strict=True):
                found[place] = one
        return [one for one in found if one is not None]

    def _fitting(
        self, prompts: Sequence[Prompt], group: Sequence[tuple[int, list[int]]]
    ) -> list[list[tuple[int, list[int]]]]:
        """A group in parts: beside the longest prompt of its part, each has room for all that it may write."""
        parts = list[list[tuple[int, list[int]]]]()
        for one in group:
            for part in parts:
                width = max(len(tokens) for _, tokens in (*part, one))
                most = max(prompts[place].max_tokens for place, _ in (*part, one))
                if self.limit is None or width + most <= self.limit:
                    part.append(one)
                    break
            else:
                parts.append([one])
        return parts

    def _written(self, prompts: Sequence[Prompt], tokens: Sequence[list[int]]) -> list[Completion]:
        first, width = prompts[0], max(map(len, tokens))
        if first.tenant is not None:
            first.tenant.refresh()
            self._handle.reader = first.tenant.reader
        ids = torch.tensor([[self.pad] * (width - len(one)) + one for one in tokens], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in tokens], device=self.model.device)
        sampling: dict[str, Any] = {"do_sample": first.samples}
        if first.samples:
            sampling |= {"temperature": first.temperature, "top_p": first.top_p, "top_k": 0}
        most = max(one.max_tokens for one in prompts)
        stopping: Any = [_Enough(prompts, self.tokenizer, width, time.monotonic() + self.seconds)]
        options = {"max_new_tokens": most, "pad_token_id": self.pad, "stopping_criteria": stopping, **sampling}
        with torch.no_grad(), torch.random.fork_rng():
            if first.seed is not None:
                torch.manual_seed(first.seed)
            if first.tenant is None:
                with self.disabled():
                    made = self.model.generate(ids, attention_mask=mask, **options)
            else:
                made = self.model.generate(ids, attention_mask=mask, **options)
        return [
            self._completion(prompt, len(own), row[width:])
            for prompt, own, row in zip(prompts, tokens, made.tolist(), strict=True)
        ]

    def _completion(self, prompt: Prompt, read: int, new: list[int]) -> Completion:
        new = new[: prompt.max_tokens]
        end = next((place for place, token in enumerate(new) if token in self.ends), None)
        written = new if end is None else new[:end]
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        cut = _stopped(text, prompt.stop)
        over = end is not None or cut is not None
        return Completion(text if cut is None else text[:cut], "stop" if over else "length", read, len(written))


class _Enough:
    """Of a batch that is being written: which texts have come to one of their own ends; all, once time is up."""

    def __init__(self, prompts: Sequence[Prompt], tokenizer: Any, width: int, until: float):
        self.prompts, self.tokenizer, self.width, self.until = prompts, tokenizer, width, until

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        over = time.monotonic() > self.until
        done = [over or self._is_done(one, row) for one, row in zip(self.prompts, input_ids, strict=True)]
        return torch.tensor(done, device=input_ids.device)

    def _is_done(self, prompt: Prompt, row: Tensor) -> bool:
        new = row[self.width :]
        if len(new) >= prompt.max_tokens:
            return True
        return bool(prompt.stop) and _stopped(self.tokenizer.decode(new.tolist()), prompt.stop) is not None


def _stopped(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of some words begins in a text."""
    found = [place for word in stop if (place := text.find(word)) >= 0]
    return min(found) if found else None


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text."""
    known = getattr(model.generation_config, "eos_token_id", None)
    known = known if isinstance(known, list) else [known]
    return {int(one) for one in (*known, tokenizer.eos_token_id) if one is not None}
