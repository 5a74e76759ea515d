"""Texts from elsewhere: another program's code, prose about it, and the model's own domain with its tokens shuffled."""

import numpy as np
import torch

import residua as rs
from experiments.familiarity.pictures import area
from experiments.knnlm.language import PIECES, Language
from experiments.knnlm.texts import DOCUMENTS, Text, cut, files, pairs
from residua.encoding.text import encode_texts
from residua.readers import Reader

CORPORA = {
    "code": "scikit-learn's code",
    "prose": "prose (descriptions of data sets)",
    "shuffled": "the standard library, lines' words shuffled",
}
K = 64


def among_texts(model: str, memory_tokens: int, eval_tokens: int, device: str) -> dict:
    """``auroc``: tokens or documents -> score -> corpus -> area, against files of the same library that neither model
    nor memory saw; ``documents``: how many of each."""
    settings = {"model": model, "device": device, "texts": "", "validation": "", "test": "", "glob": "**/*.py"}
    language = Language({**settings, "memory_tokens": memory_tokens, "eval_tokens": eval_tokens})
    own = language.texts()
    memory = rs.lm.remember(
        language.model,
        language.tokenizer,
        pairs(own.memory),
        index="exact",
        storage="top-m",
        normalise=True,
        progress=False,
        **PIECES,
    )
    reader = rs.KNNLM(memory, k=K)
    found = {
        "code": documents(language.tokenizer, "package:sklearn", "**/*.py", eval_tokens),
        "prose": documents(language.tokenizer, "package:sklearn", "datasets/descr/*.rst", eval_tokens),
        "shuffled": [Text(text.name, shuffled(text.text), text.tokens) for text in own.score],
    }
    known = measures(language, own.score, reader)
    others = {name: measures(language, some, reader) for name, some in found.items()}
    auroc = {
        of: {
            score: {name: area(values, other[of][score]) for name, other in others.items()}
            for score, values in known[of].items()
        }
        for of in known
    }
    return {"auroc": auroc, "documents": {name: len(some) for name, some in [("known", own.score), *found.items()]}}


def documents(tokenizer, folder: str, glob: str, tokens: int) -> list[Text]:
    """Files of a folder or package, of each at most a tenth of so many tokens, until they hold these."""
    out: list[Text] = []
    for name, path in files(folder, glob):
        text = path.read_text(encoding="utf-8", errors="replace")
        whole = Text(name, text, len(encode_texts(tokenizer, [text])[0]))
        if whole.tokens and sum(one.tokens for one in out) < tokens:
            out.append(cut(whole, tokens // DOCUMENTS))
    return out


def measures(language: Language, some: list[Text], reader: Reader) -> dict:
    """Of tokens and of documents, each score, higher for what is from elsewhere."""
    rows = list(language.encoded(some, reader.memory))
    found = reader.familiarity(rows)
    base = [prediction.softmax for _, prediction in reader.predictions(rows)]
    labels = torch.from_numpy(np.concatenate([part.labels for part in rows]))
    ends = np.cumsum([0, *map(len, base)])
    told = [one.log_prob(labels[start:stop]) for one, start, stop in zip(base, ends, ends[1:])]
    tokens = {
        "unfamiliar": found.distance,
        "unsure": -found.unsure,
        "msp": -torch.cat([one.confidence() for one in base]).numpy(),
        "surprise": -torch.cat(told).numpy(),
    }
    _, at, counts = np.unique(found.ids, return_inverse=True, return_counts=True)
    whole = found.documents()
    documents = {
        "unfamiliar": whole.distance,
        "unsure": -whole.unsure,
        **{name: np.bincount(at, tokens[name]) / counts for name in ("msp", "surprise")},
    }
    return {"tokens": tokens, "documents": documents}


def shuffled(text: str) -> str:
    """The same words, the order of those of each line by chance.

    >>> sorted(shuffled("a b c").split())
    ['a', 'b', 'c']
    """
    rng = np.random.default_rng(len(text))
    return "\n".join(" ".join(rng.permutation(line.split(" "))) for line in text.split("\n"))
