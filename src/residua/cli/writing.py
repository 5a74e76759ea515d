"""A language model writes on from a prompt, as itself or with a reader."""

from __future__ import annotations

import time
import warnings

import torch

from residua.encoding.text import prefix_of
from residua.encoding.tokens import position_limit
from residua.errors import ParameterError
from residua.hooks import attach


class Writer:
    """Writes on from one prompt; ``writer(reader)`` with a reader, ``writer(None)`` without.

    Parameters
    ----------
    model, tokenizer
        Causal or encoder-decoder.
    memory : Memory
        Its documents begin with the token that the prompt then begins with.
    prompt : str
        Cut at its start, with a warning, where the model has too few positions for it and what follows.
    max_new_tokens, beams : int
    temperature, top_k, top_p, seed : optional
        Any of them means sampling.

    Raises
    ------
    ParameterError
        When the model has too few positions for `max_new_tokens`.
    """

    def __init__(self, model, tokenizer, memory, prompt, *, max_new_tokens, beams, temperature, top_k, top_p, seed):
        self.model, self.tokenizer, self.seed = model, tokenizer, seed or 0
        self.pairs = bool(model.config.is_encoder_decoder)
        tokens = tokenizer(prompt, add_special_tokens=self.pairs, verbose=False)["input_ids"]
        if not self.pairs:
            prefix = (
                prefix_of(tokenizer) if "windowing" not in memory.about else memory.about["windowing"].get("prefix")
            )
            tokens = self._cut([*([] if prefix is None else [prefix]), *tokens], max_new_tokens)
        self.inputs = {"input_ids": torch.tensor([tokens], device=model.device)}
        self.inputs["attention_mask"] = torch.ones_like(self.inputs["input_ids"])
        sampled = any(value is not None for value in (temperature, top_k, top_p, seed))
        own = {"temperature": temperature, "top_k": top_k, "top_p": top_p} if sampled else {}
        self.options = {"max_new_tokens": max_new_tokens, "num_beams": beams, "do_sample": sampled}
        self.options |= {name: value for name, value in own.items() if value is not None}
        ends = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.options["pad_token_id"] = next(token for token in ends if token is not None)

    def __call__(self, reader=None) -> dict:
        """``text``, how many ``tokens`` that is, and ``tokens_per_second``, the prompt's own reading included."""
        if reader is None:
            return self._written()
        with attach(self.model, reader):
            return self._written()

    def _written(self) -> dict:
        self._generate(max_new_tokens=1)  # what is made once (caches, an exact index's sums) is not the text's time
        start = time.perf_counter()
        tokens = self._generate()
        seconds = time.perf_counter() - start
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return {"text": text, "tokens": len(tokens), "tokens_per_second": len(tokens) / seconds}

    def _generate(self, **changed) -> list[int]:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            made = self.model.generate(**self.inputs, **{**self.options, **changed})[0]
        return made[1 if self.pairs else self.inputs["input_ids"].shape[1] :].tolist()

    def _cut(self, tokens: list[int], new: int) -> list[int]:
        limit = position_limit(self.model)
        if limit is None or len(tokens) + new <= limit:
            return tokens
        if new >= limit:
            raise ParameterError(f"max_new_tokens={new}, and the model has {limit} positions; expected fewer")
        warnings.warn(
            f"the prompt's {len(tokens)} tokens and {new} new ones are more than the model's {limit} positions: only "
            f"its last {limit - new} tokens are used",
            UserWarning,
            stacklevel=4,
        )
        return tokens[new - limit :]
