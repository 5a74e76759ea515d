"""Passages in front of the context (RAG), beside kNN-LM over the same text, and questions that find their answers."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

import residua as rs
from experiments.figures import DARK, KNN, LIGHT, MIXED, RESMEM, dot_rows, panels
from experiments.knnlm.language import Language
from experiments.knnlm.texts import Text, files, pairs
from experiments.passages import questions as asked
from experiments.passages.ranking import Ranking
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.encoding.text import encode_texts
from residua.errors import ParameterError
from residua.evaluation.significance import bootstrap_interval
from residua.passages import Passages, Scored, sequence, token
from residua.readers import Reader

K = 8  # passages that are read of each context; the first of them compete
SHARES = (0.25, 0.5, 0.75, 1.0)  # λ, all passages' together
WIDTHS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, np.inf)  # σ, in squared typical distances; infinite: equal shares
ALONE, LESS = "the model alone", "the model, a passage's length less of the context"
RANKED = {"keys": "passages by the model's states", "words": "passages by TF-IDF", "random": "random passages"}
FORMS = {"token": "RAG-Token", "sequence": "RAG-Sequence"}
KNN_LM = "kNN-LM"
OTHERS = {"externals", "tests"}  # folders of what is not the package's own documentation
ANSWER = 120  # characters of a definition


def measure(
    work: Work,
    *,
    parts: tuple[str, ...] = ("text", "questions"),
    model: str = "../shared/models/code-gpt2",
    domain: str = "package:sklearn",
    glob: str = "**/*.py",
    window: int = 256,
    stride: int = 192,
    length: int = 64,
    target: int = 64,
    memory_tokens: int = 600_000,
    eval_tokens: int = 20_000,
    every: int = 3,
    index: str = "knnlm-fast",
    checkpoints: str = "out/knnlm",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Text that is continued, and questions that are answered.

    Parameters
    ----------
    parts : tuple of str
        Of "text" and "questions", which.
    model : str
        A transformers causal language model: folder or name.
    domain : str
        Text that the model never saw: a folder, or package:NAME (its source).
    glob : str
        Which files of a folder.
    window : int
        Tokens the model sees at a time: passage, context and target.
    stride : int
        By how much windows advance where kNN-LM's memory is made.
    length : int
        Tokens of a passage.
    target : int
        Tokens that are scored with the same passages.
    memory_tokens : int
        Tokens to remember.
    eval_tokens : int
        Tokens of documents to score; half as many others are tuned on.
    every : int
        One of so many targets, and of so many questions, is read.
    index : str
        Of kNN-LM's memory, as rs.Memory takes it.
    checkpoints : str
        Folder for that memory; a build that was stopped goes on from there.
    device : str
        Where the model runs.
    """
    if min(length, target, every, memory_tokens, eval_tokens) < 1 or length + target >= window:
        numbers = f"length={length}, target={target}, window={window}"
        raise ParameterError(f"{numbers}; expected passage and target to leave room for the context in the window")
    settings = {name: value for name, value in locals().items() if name not in ("work", "parts")}
    settings |= {"texts": "", "validation": "", "test": ""}  # of the model's own domain, which is not asked for
    ways = {"text": continued, "questions": answered}
    if not parts or set(parts) - ways.keys():
        raise ParameterError(f"parts={parts!r}; expected some of {', '.join(ways)}")
    return {part: work.map(ways[part], [(settings,)], part)[0] for part in parts}


def continued(settings: dict) -> dict:
    """Held-out documents: every way to find passages, kNN-LM, and both; see ``compared``."""
    language = Language(settings)
    texts = language.texts(settings["domain"])
    memory = language.remember(pairs(texts.memory), "domain")
    knn = rs.tune(rs.KNNLM(memory), list(language.encoded(texts.tune, memory)), evidence=None, progress=False)
    length, window = settings["length"], settings["window"]
    cut = {"length": length, "stride": length, "k": K, "window": window}
    plain = Passages.remember(language.model, language.tokenizer, pairs(texts.memory), **cut)
    sets = {"tune": texts.tune, "score": texts.score}
    cells = {name: pieces(language, part, settings) for name, part in sets.items()}
    found = compared(plain, cells, knn)
    return found | {"passages": len(plain.memory), "rows": len(memory), "lmbda": knn.lmbda}


def pieces(language: Language, texts: list[Text], settings: dict) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(document, context, target) of documents cut into targets; each has at least so many tokens before it."""
    length, out = settings["target"], []
    for number, text in enumerate(texts):
        (tokens,) = encode_texts(language.tokenizer, [text.text], split_special_tokens=False)
        tokens = np.asarray(tokens)
        starts = range(length, len(tokens), length * settings["every"])
        out += [(number, tokens[:at], tokens[at : at + length]) for at in starts]
    return out


def answered(settings: dict) -> dict:
    """What *See Also* entries of the package ask, and definitions that answer; see ``compared``."""
    language = Language(settings)
    every = files(settings["domain"], settings["glob"])
    found = [(name, path) for name, path in every if not OTHERS & set(name.split("/"))]
    known = asked.definitions(found)
    questions = asked.questions(found, known)[:: settings["every"]]
    answers = {name: f"{said[:ANSWER]}\n" for name, (_, said) in known.items()}
    rows = [(name, f"# {known[name][0]}\n{answers[name]}") for name in known]
    by = [f"# {summary}\n" for summary, _ in known.values()]
    model, tokenizer = language.model, language.tokenizer
    passages = Passages.remember(model, tokenizer, rows, by=by, k=K, window=settings["window"])

    def cell(number: int, question: asked.Question) -> tuple[int, np.ndarray, np.ndarray]:
        both = f"# {question.words}\n", answers[question.name]
        return number, *map(np.asarray, encode_texts(tokenizer, list(both)))

    cells = {
        name: [cell(at, one) for at, one in enumerate(questions) if at % 3 in part]
        for name, part in (("tune", (0,)), ("score", (1, 2)))
    }
    meant = [question.name for at, question in enumerate(questions) if at % 3]
    return compared(passages, cells, None, meant) | {"passages": len(passages.memory)}


def compared(
    passages: Passages, cells: dict[str, list[tuple]], knn: Reader | None, meant: list[str] | None = None
) -> dict:
    """Every system on the cells that are scored, its settings chosen on those tuned on: ``tokens``, ``documents``, and
    ``systems``, by name ``perplexity``, its ``change`` in % against `against` with an interval over documents, and
    ``settings``. `meant`: which passage each scored cell asks for; ``hits`` are then shares of %, by way, among the
    first 1 and 8."""
    ranking, nothing = Ranking(passages, K), passages.read([], [])
    short = spoken(passages, window=passages.window - passages.memory.about["passages"]["length"])
    beside = spoken(passages, reader=knn)
    heard: dict[tuple[str, str], list[Scored]] = {}
    less = [short.score(c, t, found=nothing).alone for _, c, t in cells["score"]]
    neighbours = {}
    for name, part in cells.items():
        neighbours[name] = [beside.score(c, t, found=nothing).alone for _, c, t in part]
        contexts = [context for _, context, _ in part]
        for way in RANKED:
            found = ranking.find(way, contexts)
            heard[name, way] = [passages.score(c, t, found=f) for (_, c, t), f in zip(part, found)]
    documents = np.concatenate([np.full(len(t), d) for d, _, t in cells["score"]])
    alone = flat(one.alone for one in heard["score", "words"])
    systems = {ALONE: told(alone, None, documents)}
    if meant is None:  # a question leaves the window half empty
        systems[LESS] = told(flat(less), alone, documents, ALONE)
    for over in ("", KNN_LM) if knn is not None else ("",):
        base = flat(neighbours["score"]) if over else alone
        if over:
            systems[over] = told(base, alone, documents, ALONE)
            heard = {
                (name, way): [replace(one, alone=other) for one, other in zip(part, neighbours[name])]
                for (name, way), part in heard.items()
            }
        for (way, label), (form, title) in product(RANKED.items(), FORMS.items()):
            chosen, said = best(form, heard["tune", way], heard["score", way])
            label = f"{over and f'{over} + '}{title}, {label}"
            systems[label] = told(said, base, documents, over or ALONE) | chosen
    hits = {}
    if meant is not None:
        for way in RANKED:
            right = [[n == name for n in one.found.names] for one, name in zip(heard["score", way], meant)]
            hits[way] = [100 * float(np.mean([any(one[:k]) for one in right])) for k in (1, K)]
    return {"tokens": len(alone), "documents": len(np.unique(documents)), "systems": systems, "hits": hits}


def spoken(passages: Passages, **other) -> Passages:
    """The same passages, read otherwise."""
    options = {"k": passages.k, "window": passages.window} | other
    return Passages(passages.model, passages.tokenizer, passages.memory, **options)


def best(form: str, tune: list[Scored], score: list[Scored]) -> tuple[dict, np.ndarray]:
    """The settings with the lowest perplexity on what is tuned on, and log-probabilities of what is scored, (n,)."""
    typical = float(np.median([one.found.distances[0] for one in tune]))
    tried = [dict(zip(("k", "lmbda", "width"), one)) for one in product((1, 4, K), SHARES, WIDTHS)]
    chosen = max(tried, key=lambda one: flat(said(form, tune, typical, **one)).mean())
    return chosen, flat(said(form, score, typical, **chosen))


def said(form: str, scored: list[Scored], typical: float, k: int, lmbda: float, width: float) -> Iterable[np.ndarray]:
    """Log-probabilities of each target with the first k passages, whose distances were looked up once."""
    mixed: Callable = token if form == "token" else sequence
    for one in scored:
        squared = one.found.distances[:k].astype(np.float64) ** 2
        eta = np.exp(-(squared - squared[0]) / (width * typical**2))
        yield mixed(np.append(lmbda * eta / eta.sum(), 1 - lmbda), np.vstack([one.each[:k], one.alone]))


def flat(parts: Iterable[np.ndarray]) -> np.ndarray:
    """All numbers in one array."""
    return np.concatenate(list(parts))


def told(said: np.ndarray, other: np.ndarray | None, documents: np.ndarray, against: str = "") -> dict:
    """``perplexity``; and its ``change`` in % against another's, with a 95 % interval over documents."""
    found: dict = {"perplexity": float(np.exp(-said.mean()))}
    if other is not None:
        gains = said - other
        _, groups, sizes = np.unique(documents, return_inverse=True, return_counts=True)
        sums = np.bincount(groups, gains)
        low, high = bootstrap_interval(sums, 0.95, 2000, np.random.default_rng(0), sizes)
        found["change"] = [100 * (np.exp(-gain) - 1) for gain in (gains.mean(), high, low)]
        found |= {"against": against, "better": int((sums > 0).sum())}
    return found


def tables(results: dict) -> dict[str, Table]:
    """Perplexity of each system on text and on answers, and which passages questions find."""
    found = {name: table(one) for name, one in results.items()}
    if "questions" in results:
        hits = results["questions"]["hits"].items()
        rows = [[RANKED[way], *(f"{share:.1f}" for share in shares)] for way, shares in hits]
        found["found"] = Table(("", "the first, %", f"among the first {K}, %"), rows)
    return found


def table(one: dict) -> Table:
    """Each system, and what it is compared with."""
    rows = []
    for name, found in one["systems"].items():
        change = [interval(found["change"]), found["against"]] if "change" in found else ["", ""]
        better = f"{found['better']} of {one['documents']}" if "change" in found else ""
        shown = ""
        if "k" in found:
            width = found["width"]
            shown = f"k {found['k']}, λ {found['lmbda']:g}, " + (f"σ {width:g}" if width else "equal shares")
        rows.append([name, f"{found['perplexity']:.2f}", *change, better, shown])
    return Table(("", "perplexity", "change, %", "against", "better in", "chosen"), rows)


def draw(results: dict) -> Figure:
    """How each system changes perplexity against what it is compared with."""
    figure, axes = panels(len(results), 1, (10, 1 + 4 * len(results)))
    for panel, (name, one) in zip(axes[:, 0], results.items()):
        systems = {label: found for label, found in one["systems"].items() if "k" in found}
        rows = [
            (label, found["change"], colour(label), f"{found['perplexity']:.2f}", None)
            for label, found in systems.items()
        ]
        dot_rows(panel, rows)
        title = f"{name}: the model alone {one['systems'][ALONE]['perplexity']:.2f}"
        if KNN_LM in one["systems"]:
            title += f", kNN-LM {one['systems'][KNN_LM]['perplexity']:.2f}"
        panel.set(xlabel="perplexity against the model alone, or against kNN-LM, %", title=title)
    return figure


def colour(label: str) -> str:
    """By how passages are found; those beside kNN-LM dark."""
    if label.endswith(RANKED["random"]):
        return KNN
    if label.startswith(KNN_LM):
        return DARK
    return RESMEM if label.endswith(RANKED["words"]) else LIGHT if "Token" in label else MIXED
