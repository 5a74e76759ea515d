"""One architecture: its key, its perplexity through residua and by a plain loop, and how it generates when attached."""

import math
import warnings

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast, logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

import residua as rs
from experiments.architectures.small import VOCABULARY, small_model
from residua.errors import ResiduaError

TEXTS = [f"def {name}(self, value):\n    self.{name} = value\n    return self\n" for name in ("add", "count", "find")]
LARGE = 6_000_000  # parameters that are still small
MODES = ("greedy", "sampled", "beams", "batch")
TOKENS = 5


def checked(name: str) -> dict:
    """What came of one architecture; where a step failed, its name and the reason."""
    logging.set_verbosity_error()
    kind = next(kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING if kind.model_type == name)
    step = "building it small"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.device("meta"):
                size = sum(weight.numel() for weight in small_model(kind).parameters())
            if size > LARGE:
                return {"name": name, "step": step, "reason": f"{size:,} parameters"}
            model = small_model(kind)
            step = "running it on tokens alone"
            with torch.inference_mode():
                model(torch.arange(8)[None])
            step = "encoding"
            found = read(model)
            return {"name": name, **found}
    except Exception as error:  # noqa: BLE001 whatever an architecture is missing
        said = f"{type(error).__name__}: {error}" if not isinstance(error, ResiduaError) else str(error)
        return {"name": name, "step": step, "reason": " ".join(said.split())[:160].replace("|", "/")}


def read(model: PreTrainedModel) -> dict:
    """Its key, perplexities and the modes in which it generates."""
    tokenizer = tokenizer_of(TEXTS)
    memory = rs.lm.remember(model, tokenizer, TEXTS[:2], window=16, index="exact", end_of_text=False, progress=False)
    reader = rs.KNNLM(memory, k=4, lmbda=0.5)
    result = rs.lm.evaluate(model, tokenizer, TEXTS[2:], rs.KNNLM(memory, k=0), progress=False)
    plain = perplexity(model, tokenizer, TEXTS[2], memory.source.key)
    return {
        "key": memory.source.key,
        "perplexity": float(result.perplexity),
        "same": math.isclose(float(result.perplexity), plain, rel_tol=1e-4),
        "modes": {mode: generates(model, tokenizer, reader, mode) for mode in MODES},
    }


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, key: str) -> float:
    """By the windows that residua cuts, 16 tokens every 12, in a loop that knows nothing else of it."""
    tokens = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]
    losses, done = [], 0
    for start in range(0, len(tokens), 12):
        end = min(start + 16, len(tokens) - 1)
        with torch.inference_mode():
            said = model(torch.tensor([tokens[start:end]])).logits[0].double()
        losses += cross_entropy(
            said[done - start :], torch.tensor(tokens[done + 1 : end + 1]), reduction="none"
        ).tolist()
        done = end
        if done == len(tokens) - 1:
            break
    return math.exp(np.mean(losses))


def generates(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, reader: rs.KNNLM, mode: str) -> bool | str:
    """Whether the attached model says in a mode of generation what its forward passes say; else why it cannot.

    Greedily the tokens are those that whole passes without a cache give, and sampled from the likeliest token alone
    too; those of two beams are no less likely; those of a batch are those of its rows.
    """
    prompts = torch.tensor([tokenizer(text)["input_ids"][:6] for text in TEXTS])
    settings = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "pad_token_id": 1}
    more = {"sampled": {"do_sample": True, "top_k": 1}, "beams": {"num_beams": 2, "do_sample": False}}
    plain = settings | {"do_sample": False}
    try:
        with rs.attach(model, reader), torch.no_grad():
            if mode == "batch":
                together = model.generate(prompts, **plain)
                alone = torch.cat([model.generate(one[None], **plain) for one in prompts])
                return bool((together == alone).all())
            out = model.generate(prompts[:1], **settings | more.get(mode, {"do_sample": False}))
            whole = model.generate(prompts[:1], **plain, use_cache=False)
            if mode == "beams":
                return out.shape == whole.shape and likelihood(model, out) >= likelihood(model, whole) - 1e-3
            return bool((out == whole).all())
    except Exception as error:  # noqa: BLE001 as above
        return f"{type(error).__name__}: {error}"[:160]


def likelihood(model: PreTrainedModel, tokens: torch.Tensor) -> float:
    """The log-probability of the generated tokens."""
    said = model(tokens).logits[0, -TOKENS - 1 : -1].log_softmax(-1)
    return float(said.gather(1, tokens[0, -TOKENS:, None]).sum())


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """Bytes and a few of their pairs: 300 tokens, 0 the end and the beginning, 1 padding."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=["<end>", "<pad>"], show_progress=False)
    names = {"bos_token": "<end>", "eos_token": "<end>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **names)
