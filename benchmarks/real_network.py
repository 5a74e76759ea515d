"""ResMem on a trained ResNet-8 and CIFAR-100: at the paper's settings, tuned, and with flipped images."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

import residua as rs
from benchmarks._cifar import encoded, halves

PAPER = {"k": 53, "sigma": 0.7, "temperature": 1.4}


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Percent."""
    return round(100 * float((scores.argmax(axis=1) == labels).mean()), 2)


def tuned(train: rs.Encoded, val: rs.Encoded, test: rs.Encoded, make) -> dict:
    """Tune on one half of the test set, report on the other."""
    best = rs.tune(make(rs.Memory(train)), val, objective="accuracy", evidence=None, progress=False)
    result = rs.evaluate(best, test, validation=val)
    keys = (
        "base_accuracy",
        "accuracy",
        "gain",
        "gain_interval",
        "tpr",
        "fpr",
        "p_value",
        "label_knn",
        "label_knn_tuned",
    )
    summary = result.to_dict()
    return {"params": best.best_params_, **{key: summary[key] for key in keys}}


def flips(train: rs.Encoded, flipped: rs.Encoded, test: rs.Encoded, flipped_test: rs.Encoded) -> dict:
    """What flipped rows in the memory, and averaging over the flipped query, add (accuracy in percent).

    At the paper's settings on all test rows; and tuned on the even rows, for the memory with flipped rows, on the odd.
    """
    ids = np.arange(len(train))
    both = [rs.Encoded(e.keys, e.logits, e.labels, ids, source=e.source, head=e.head) for e in (train, flipped)]
    memories = {"plain memory": rs.Memory(both[0]), "flipped rows too": rs.Memory(both)}
    best = rs.tune(
        rs.ResMem(memories["flipped rows too"]), test[0::2], objective="accuracy", evidence=None, progress=False
    ).best_params_
    out = {}
    for name, params, rows in (("paper settings", PAPER, slice(None)), ("tuned on even rows", best, slice(1, None, 2))):
        queries, labels = (test[rows], flipped_test[rows]), test.labels[rows]
        base = [softmax(np.asarray(e.logits) / params["temperature"], axis=1) for e in queries]
        pairs = {"base": base}
        for kind, memory in memories.items():
            reader = rs.ResMem(memory, **params)
            pairs[kind] = [reader.scores(e) for e in queries]
        out[name] = {"params": params}
        for kind, (one, two) in pairs.items():
            averaged = accuracy(one + two, labels)
            out[name][kind] = {"one query": accuracy(one, labels), "averaged over the flip": averaged}
    return out


def main() -> dict:
    """Every figure on the 10 000 test images; halves are the even and the odd rows (50 images of each class)."""
    train, test = encoded("train"), encoded("test")
    memory = rs.Memory(train)
    paper = rs.evaluate(rs.ResMem(memory, **PAPER), test).to_dict()
    logits = rs.ResMem(memory, **PAPER, space="logits")
    even, odd = halves(test)
    in_sample = rs.ResMem(memory, **PAPER).predict(train) == train.labels
    return {
        "paper_settings": {**PAPER, **paper},
        "training_accuracy_at_paper_settings": round(100 * float(in_sample.mean()), 2),
        "logit_space_at_paper_settings": rs.evaluate(logits, test).to_dict(),
        "tuned_on_even_rows": tuned(train, even, odd, lambda memory: rs.ResMem(memory)),
        "tuned_on_odd_rows": tuned(train, odd, even, lambda memory: rs.ResMem(memory)),
        "interpolation_tuned_on_even_rows": tuned(train, even, odd, lambda memory: rs.KNNLM(memory)),
        "interpolation_tuned_on_odd_rows": tuned(train, odd, even, lambda memory: rs.KNNLM(memory)),
        "flips": flips(train, encoded("train", flip=True), test, encoded("test", flip=True)),
        "storage_agreement": storages(train, test, memory),
    }


def storages(train: rs.Encoded, test: rs.Encoded, full: rs.Memory) -> dict:
    """The same reading from every storage: accuracy in percent and bytes per row."""
    expected = rs.ResMem(full, **PAPER).scores(test)
    out = {}
    for name in ("full", "head", "top-m"):
        memory = full if name == "full" else rs.Memory(train, storage=name, m=16, temperature=PAPER["temperature"])
        scores = rs.ResMem(memory, **PAPER).scores(test)
        out[name if name != "top-m" else "top-16"] = {
            "accuracy": accuracy(scores, test.labels),
            "largest_difference": float(np.abs(scores - expected).max()),
            "bytes_per_row": sum(memory.bytes_per_row.values()),
        }
    return out
