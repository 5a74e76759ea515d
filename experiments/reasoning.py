"""What a memory recites and what it does not conclude: invented facts asked for as written, in other words, backwards,
and one after another."""

from typing import Literal

import numpy as np
from matplotlib.figure import Figure

import residua as rs
from experiments.figures import BASE, KNN, RESMEM, dot, legend_below, panels
from experiments.halves import wilson
from experiments.knnlm.language import Language
from experiments.table import Table
from experiments.work import Work
from residua.core import as_tensor
from residua.readers import Reader

CHOICES = 10  # answers to choose from: chance is right once in ten
START = ("ba", "ko", "mi", "tu", "ze", "ra", "lo", "ni", "pe", "su", "va", "di")
END = ("rel", "tan", "mos", "vik", "dor", "lin", "gus", "pem", "kar", "zol", "fen", "hut")
KINDS = {
    "recited": "as it is written",
    "reworded": "in other words",
    "reversed": "backwards",
    "composed": "two facts, one after the other",
}
READERS = {
    "base": "the model alone",
    "knnlm": "kNN-LM, λ 0.5",
    "context": "the model, with the facts before the question",
}
COLOURS = {"base": BASE, "knnlm": RESMEM, "context": KNN}


def measure(
    work: Work,
    *,
    model: str = "../shared/models/code-gpt2",
    facts: int = 150,
    checkpoints: str = "out/reasoning",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Remember invented facts, two for each of so many names, and choose the right answer of ten.

    Parameters
    ----------
    model : str
        A transformers causal language model: folder or name.
    facts : int
        Names, each with its capital, and each capital with its mayor.
    checkpoints : str
        Folder for the memory.
    device : str
        Where the model and the memory live.
    """
    settings = {"model": model, "device": device, "window": 128, "stride": 96, "index": "exact"}
    (found,) = work.map(answered, [(settings | {"checkpoints": checkpoints}, facts)], desc="facts")
    return found


def names(count: int, rng: np.random.Generator) -> list[str]:
    """So many different invented names."""
    every = [f"{a}{b}{c}".capitalize() for a in START for b in START for c in END]
    return [every[place] for place in rng.permutation(len(every))[:count]]


def stories(facts: int) -> list[tuple[str, str]]:
    """Two documents for each name: its capital, and the capital's mayor."""
    lands, capitals, mayors = people(facts)
    found = [(f"{land}.py", capital_of(land) + f" {capital}.\n") for land, capital in zip(lands, capitals)]
    return found + [(f"{one}.py", mayor_of(one) + f" {mayor}.\n") for one, mayor in zip(capitals, mayors)]


def people(facts: int) -> tuple[list[str], list[str], list[str]]:
    """Lands, their capitals and these capitals' mayors."""
    called = names(3 * facts, np.random.default_rng(0))
    return called[:facts], called[facts : 2 * facts], called[2 * facts :]


def capital_of(land: str) -> str:
    """The beginning of a fact, as it is remembered."""
    return f"# The capital of {land} is"


def mayor_of(capital: str) -> str:
    """The same of the other kind."""
    return f"# The mayor of {capital} is"


def questions(facts: int) -> dict[str, list[tuple[str, list[str]]]]:
    """By kind of question, of each name how the line begins and the answers to choose from, the right one first."""
    lands, capitals, mayors = people(facts)
    rng = np.random.default_rng(1)

    def among(answers: list[str], at: int) -> list[str]:
        others = rng.choice(np.delete(np.arange(len(answers)), at), CHOICES - 1, replace=False)
        return [answers[at], *(answers[other] for other in others)]

    each = range(facts)
    return {
        "recited": [(capital_of(lands[i]), among(capitals, i)) for i in each],
        "reworded": [(f"# {lands[i]} has a capital, and it is called", among(capitals, i)) for i in each],
        "reversed": [(f"# {capitals[i]} is the capital of", among(lands, i)) for i in each],
        "composed": [(f"# The mayor of the capital of {lands[i]} is", among(mayors, i)) for i in each],
    }


def answered(settings: dict, facts: int) -> dict:
    """``rows``, and by reader and kind of question how many answers were ``right`` and how many were ``asked``."""
    language = Language(settings)
    documents = stories(facts)
    memory = language.remember(documents, "facts")
    told = dict(documents)
    alone, both = rs.KNNLM(memory, k=0), rs.KNNLM(memory, k=min(64, len(memory)), lmbda=0.5)
    found: dict[str, dict] = {name: {} for name in READERS}
    for kind, lines in questions(facts).items():
        for name, reader in (("base", alone), ("knnlm", both), ("context", alone)):
            before = [before_of(kind, i, facts, told) if name == "context" else "" for i in range(facts)]
            asked = [(told_before + line, answers) for told_before, (line, answers) in zip(before, lines)]
            found[name][kind] = {"right": int((chosen(language, reader, asked) == 0).sum()), "asked": facts}
    return {"rows": len(memory), "readers": found}


def before_of(kind: str, i: int, facts: int, told: dict[str, str]) -> str:
    """The facts that a question is about, as lines before it: what retrieval at its best would find."""
    lands, capitals, _ = people(facts)
    return told[f"{lands[i]}.py"] + (told[f"{capitals[i]}.py"] if kind == "composed" else "")


def chosen(language: Language, reader: Reader, asked: list[tuple[str, list[str]]]) -> np.ndarray:
    """Of each question, which of its answers is the most probable, a token of it in the mean; int (n,)."""
    texts = [f"{before} {answer}.\n" for before, answers in asked for answer in answers]
    starts = [len(language.tokenizer(before)["input_ids"]) for before, answers in asked for _ in answers]
    rows = rs.lm.encode(language.model, language.tokenizer, texts, like=reader.memory, end_of_text=False)
    found = list[np.ndarray]()
    # A recited fact is a remembered document, and is not to be left out.
    for part, now in reader.predictions(rows, exclude=None):
        assert part.labels is not None
        found.append(now.log_prob(as_tensor(part.labels)).cpu().numpy())
    lengths = [len(language.tokenizer(text)["input_ids"]) for text in texts]
    each = np.split(np.concatenate(found), np.cumsum(lengths)[:-1])
    scores = np.array([said[start:].mean() for said, start in zip(each, starts)])
    return scores.reshape(len(asked), -1).argmax(axis=1)


def share(one: dict) -> list[float]:
    """[%, low, high] with Wilson's 95 % interval."""
    return wilson(one["right"], one["asked"])


def tables(results: dict) -> dict[str, Table]:
    """What each reader answers rightly, by kind of question."""
    rows = [
        [READERS[name], *("{:.0f} [{:.0f}, {:.0f}]".format(*share(kinds[kind])) for kind in KINDS)]
        for name, kinds in results["readers"].items()
    ]
    return {"facts": Table(("right of ten answers, %", *KINDS.values()), rows)}


def draw(results: dict) -> Figure:
    """The same, with intervals."""
    figure, ((axes,),) = panels(1, 1, (7, 3))
    for place, (name, kinds) in enumerate(results["readers"].items()):
        for at, kind in enumerate(KINDS):
            middle, *ends = share(kinds[kind])
            dot(axes, at + 0.15 * (place - 1), middle, ends, colour=COLOURS[name], label=READERS[name])
    axes.axhline(100 / CHOICES, color=KNN, lw=1, ls=":")
    axes.set(ylabel="right, %", ylim=(0, 103), xticks=range(len(KINDS)))
    axes.set_xticklabels([name.replace(", ", ",\n") for name in KINDS.values()])
    legend_below(figure, [axes])
    return figure
