"""Greedy text with drafts from the memory, and without: the same text, sooner."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import residua as rs
from experiments.figures import BASE, DARK, KNN, MIXED, dot_rows, panels
from experiments.gate import OWN
from experiments.knnlm.language import Language
from experiments.knnlm.texts import Text, pairs
from experiments.table import Table
from experiments.work import Work
from residua.errors import InputError, ParameterError
from residua.hooks.drafts import Drafts
from residua.memory.suffixes import goes_on

LOOKUP = 10  # tokens that transformers' prompt lookup drafts, as its documentation does
DRAWS = 2000
ALONE, MEMORY = "the model alone", "kNN-LM"
# Of each way: what it is called, whether the memory is attached, and what drafts.
WAYS = {
    "base": (ALONE, False, ""),
    "base+lookup": (f"{ALONE}, prompt lookup", False, "lookup"),
    "base+memory": (f"{ALONE}, drafts from the memory only", False, "memory"),
    "base+drafts": (f"**{ALONE}, drafts**", False, "drafts"),
    "knnlm": (MEMORY, True, ""),
    "knnlm+lookup": (f"{MEMORY}, prompt lookup", True, "lookup"),
    "knnlm+memory": (f"{MEMORY}, drafts from the memory only", True, "memory"),
    "knnlm+drafts": (f"**{MEMORY}, drafts**", True, "drafts"),
}
COLOURS = {"": BASE, "lookup": KNN, "memory": MIXED, "drafts": DARK}


class MemoryOnly(Drafts):
    """Drafts that do not look at the text itself."""

    def draft(self, text: list[int], most: int) -> list[int]:
        """As ``Drafts`` does where the memory has the longer suffix."""
        places, length = self.suffixes.match(text)
        return goes_on(self.suffixes.text, places, max(1, min(length, most))) or text[-1:]


@dataclass
class Made:
    """What came after one prompt in one way: the tokens, how often the model ran, and the seconds of each round."""

    tokens: list[int]
    steps: int
    seconds: list[float]

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return len(self.tokens) / float(np.median(self.seconds))


def measure(
    work: Work,
    *,
    model: str = "../shared/models/code-gpt2",
    texts: str = "",
    validation: str = "",
    test: str = "",
    domain: str = "package:sklearn",
    glob: str = "**/*.py",
    window: int = 256,
    stride: int = 192,
    domain_tokens: int = 600_000,
    own_tokens: int = 550_000,
    eval_tokens: int = 40_000,
    prompts: int = 2,
    prompt_tokens: int = 128,
    new_tokens: int = 128,
    rounds: int = 2,
    index: str = "knnlm-fast",
    checkpoints: str = "out/knnlm",
) -> dict:
    """Both corpora, on the CPU.

    Parameters
    ----------
    model : str
        A transformers causal language model: folder or name.
    texts : str
        Folder to remember; by default Python's own library, by the split.json beside the model.
    validation : str
        Folder to tune on; without it and --test, files of --texts are set aside.
    test : str
        Folder that prompts are taken from.
    domain : str
        Text that the model never saw: a folder, or package:NAME (its source).
    glob : str
        Which files of a folder.
    window : int
        Tokens the model sees at a time, where the memory is made.
    stride : int
        By how much windows advance.
    domain_tokens : int
        Tokens to remember of --domain.
    own_tokens : int
        Tokens to remember of the model's own domain.
    eval_tokens : int
        Tokens of the documents that prompts are taken from, of each; half as many others are tuned on.
    prompts : int
        Of each of these documents.
    prompt_tokens : int
        Of each prompt.
    new_tokens : int
        To be generated.
    rounds : int
        How often each way writes each text, in turn.
    index : str
        As rs.Memory takes it.
    checkpoints : str
        Folder for memories; a build that was stopped goes on from there.
    """
    given = locals()
    positive = ("domain_tokens", "own_tokens", "eval_tokens", "prompts", "prompt_tokens", "new_tokens", "rounds")
    for name in positive:
        if given[name] < 1:
            raise ParameterError(f"{name}={given[name]}; expected at least 1")
    settings = {name: value for name, value in given.items() if name not in ("work", "domain")} | {"device": "cpu"}
    cells = [
        (settings | {"memory_tokens": own_tokens}, OWN, None),
        (settings | {"memory_tokens": domain_tokens}, domain.removeprefix("package:"), domain),
    ]
    return {"corpora": work.map(corpus, cells, "corpora")}


def corpus(settings: dict, name: str, folder: str | None) -> dict:
    """Every way to write on one corpus: ``name``, ``rows`` of the memory, ``prompts``, ``documents``, ``suffixes``
    (seconds to sort them), ``repeats`` (of each reader's text) and ``ways``, by name what ``told`` gives."""
    language = Language(settings)
    documents = language.texts(folder)
    memory = language.remember(pairs(documents.memory), "own" if folder is None else "domain")
    memory.index = memory.index.index  # every search is timed
    reader = rs.tune(rs.KNNLM(memory), list(language.encoded(documents.tune, memory)), evidence=None, progress=False)
    helpers = {"memory": MemoryOnly(memory), "drafts": rs.lm.draft(memory)}
    start = time.process_time()
    remembered = [len(helper.suffixes.text) for helper in helpers.values()]  # sorted when they are first asked for
    sorting = (time.process_time() - start) / len(remembered)
    options: dict[str, dict[str, Any]] = {how: {"assistant_model": helper} for how, helper in helpers.items()}
    options |= {"": {}, "lookup": {"prompt_lookup_num_tokens": LOOKUP}}

    groups, found = [], {way: list[Made]() for way in WAYS}
    for number, document in enumerate(documents.score):
        for prompt in taken(language.tokenizer, document, settings):
            groups.append(number)
            made = written(language.model, reader, prompt, options, settings["new_tokens"], settings["rounds"])
            for way, one in made.items():
                found[way].append(one)
    if not groups:
        raise InputError(f"no document has prompt_tokens={settings['prompt_tokens']} tokens; expected fewer")
    return {
        "name": name,
        "rows": len(memory),
        "reader": reader.to_json()["params"],
        "prompts": len(groups),
        "documents": len(set(groups)),
        "suffixes": sorting,
        "repeats": {
            way: 100 * float(np.mean([repeated(one.tokens) for one in found[way]])) for way in ("base", "knnlm")
        },
        "ways": {way: told(found, way, np.array(groups)) for way in WAYS},
    }


def taken(tokenizer: Callable, document: Text, settings: dict) -> list[list[int]]:
    """Prompts from places of a document that are evenly spread; none where it is too short."""
    tokens, length = tokenizer(document.text)["input_ids"], settings["prompt_tokens"]
    starts = np.linspace(0, len(tokens) - length, settings["prompts"] + 1, dtype=int)[1:]
    return [tokens[start : start + length] for start in starts if len(tokens) >= length]


def written(
    model: torch.nn.Module, reader: rs.KNNLM, prompt: list[int], options: dict, new: int, rounds: int
) -> dict[str, Made]:
    """Every way's text after one prompt, the ways in turn; the prompt's reading takes its time, too."""
    runs: list[int] = []
    ids, found = torch.tensor([prompt]), dict[str, Made]()
    length = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    hook = model.register_forward_hook(lambda *_: runs.append(1))
    try:
        for _ in range(rounds):
            for way, (_, attached, how) in WAYS.items():
                with rs.attach(model, reader) if attached else nullcontext():
                    runs.clear()
                    start = time.process_time()
                    made = model.generate(ids, attention_mask=torch.ones_like(ids), **length, **options[how])
                    seconds = time.process_time() - start
                one = found.setdefault(way, Made(made[0, len(prompt) :].tolist(), len(runs), []))
                one.seconds.append(seconds)
    finally:
        hook.remove()
    return found


def repeated(tokens: list[int], n: int = 4) -> float:
    """The share of a text's runs of n tokens that it said before.

    >>> repeated([1, 2, 3, 4, 1, 2, 3, 4, 1])
    0.3333333333333333
    """
    runs = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(runs)) / max(len(runs), 1)


def told(found: dict[str, list[Made]], way: str, groups: np.ndarray) -> dict:
    """``tokens_per_second`` (the median over prompts), ``tokens_per_step``, ``same`` (how many texts are as without
    drafts), and ``undrafted`` and ``base``: how many times as fast as those, as ``ratio`` says."""
    made, plain = found[way], found["knnlm" if WAYS[way][1] else "base"]
    return {
        "tokens_per_second": float(np.median([one.speed for one in made])),
        "tokens_per_step": sum(len(one.tokens) for one in made) / sum(one.steps for one in made),
        "same": sum(one.tokens == other.tokens for one, other in zip(made, plain, strict=True)),
        "undrafted": ratio(made, plain, groups),
        "base": ratio(made, found["base"], groups),
    }


def ratio(made: list[Made], others: list[Made], groups: np.ndarray) -> list[float]:
    """[median, low, high] over prompts of how much faster, 95 %, whole documents resampled."""
    times = np.array([one.speed / other.speed for one, other in zip(made, others, strict=True)])
    each = [times[groups == group] for group in np.unique(groups)]
    rng = np.random.default_rng(0)
    draws = [np.median(np.concatenate([each[i] for i in rng.integers(0, len(each), len(each))])) for _ in range(DRAWS)]
    return [float(np.median(times)), *map(float, np.quantile(draws, [0.025, 0.975]))]


def tables(results: dict) -> dict[str, Table]:
    """One table for each corpus, by its name."""
    return {one["name"]: table(one) for one in results["corpora"]}


def table(one: dict) -> Table:
    """Every way: how fast, against what, and whether the text is the same."""
    rows = []
    for way, found in one["ways"].items():
        label, _, how = WAYS[way]
        speed, step = f"{found['tokens_per_second']:.0f}", f"{found['tokens_per_step']:.2f}"
        same = f"{found['same']} of {one['prompts']}" if how else ""
        against = [times(found["undrafted"]) if how else "", "" if way == "base" else times(found["base"])]
        rows.append([label, speed, step, *against, same])
    heads = ("", "tokens/s", "tokens a run", "× without drafts", "× the model alone", "same text")
    return Table(heads, rows)


def times(found: list[float]) -> str:
    """``[middle, low, high]``, a ratio.

    >>> times([1.5, 1.25, 1.75])
    '1.50 [1.25, 1.75]'
    """
    middle, low, high = found
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def draw(results: dict) -> Figure:
    """How much faster than the model alone each way is."""
    corpora = results["corpora"]
    figure, axes = panels(len(corpora), 1, (9, 3 * len(corpora)))
    for panel, one in zip(axes[:, 0], corpora):
        rows = []
        for way, found in one["ways"].items():
            label, _, how = WAYS[way]
            if way != "base":
                faster = [100 * (edge - 1) for edge in found["base"]]
                rows.append((label.replace("*", ""), faster, COLOURS[how], f"{found['tokens_per_second']:.0f}/s", None))
        dot_rows(panel, rows)
        panel.set(xlabel="faster than the model alone, %", title=one["name"])
    return figure
