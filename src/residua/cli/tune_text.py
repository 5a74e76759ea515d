"""``residua tune --text``: a reader of a memory of tokens, and the continuous cache over it, on validation text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from residua.cli.language import model_of
from residua.cli.text import count, shown
from residua.cli.texts import texts_at


class Validation:
    """Validation text, encoded anew each time that it is asked for.

    Attributes
    ----------
    tokens, documents : int, set of int
        How many the last pass had, and which.
    """

    def __init__(self, memory, path: Path, text: tuple[Path, ...], max_tokens: int | None, *, model, dtype, **reading):
        self.memory, self.text, self.most = memory, text, max_tokens or math.inf
        self.tokens, self.documents = 0, set()
        self.batch_size = reading.pop("batch_size")
        self.model, self.tokenizer = model_of(memory, path, model, dtype)
        self.reading = reading

    def batches(self) -> Iterator:
        """Batches of tokens, up to `most` of them in all."""
        import residua as rs

        texts, reading = texts_at(self.text, self.model, self.reading)
        self.tokens, self.documents = 0, set()
        encoded = rs.lm.encode(
            self.model, self.tokenizer, texts, like=self.memory, batch_size=self.batch_size, **reading
        )
        with closing(encoded):
            for batch in encoded:
                left = self.most - self.tokens
                batch = batch[: int(left)] if len(batch) > left else batch
                self.tokens += len(batch)
                self.documents.update(batch.ids.tolist())
                yield batch
                if self.tokens >= self.most:
                    return


def tuned(start, path: Path, text, grid: dict | None, *, objective, max_fpr, adaptive, gate, cache, **options):
    """The best reader on validation text, and what to say of it for machines and for people."""
    from residua.readers import ContinuousCache
    from residua.tuning import tune as choose

    kept = ("max_tokens", "model", "dtype", "glob", "errors", "batch_size")
    validation = Validation(start.memory, path, text, **{name: options[name] for name in kept})
    best = choose(start, validation.batches(), grid, objective=objective, max_fpr=max_fpr, adaptive=adaptive, gate=gate)
    about, lines = _found(best, best.cv_results_["k"] == 0, objective or "log_loss", validation)
    about["adaptive"], about["skipped"] = getattr(best, "adaptive_", None), getattr(best, "skipped_", None)
    if about["adaptive"]:
        fixed, adapted = about["adaptive"]["fixed"], about["adaptive"]["adaptive"]
        verdict = "used" if adapted < fixed else "not used"
        lines.append(
            f"  a share by distance: {verdict}; perplexity {adapted:.4g}, and {fixed:.4g} with one share for all, on "
            "the half of the documents it was not fitted on"
        )
    if about["skipped"] is not None:
        lines.append(
            f"  the gate ({shown({'gate': best.gate}) or 'none'}) saves {about['skipped']:.1%} of the searches"
        )
    if cache:
        best = choose(ContinuousCache(best), validation.batches())
        about["cache"], more = _found(best, best.cv_results_["lmbda"] == 0, "log_loss", validation)
        lines += more
    return best, about, lines


def _found(best, without, objective: str, validation: Validation) -> tuple[dict, list[str]]:
    """What a sweep chose; `without` marks the settings that do not use what was tuned."""
    from residua.cli.tune import MEASURES, NO_HELP

    results, name = best.cv_results_, type(best).__name__
    base, score = float(results["score"][without].max()), best.best_score_
    about = {
        "reader": name,
        "params": best.to_json()["params"],
        "objective": objective,
        "settings": len(results["score"]),
        "tokens": validation.tokens,
        "documents": len(validation.documents),
        "score": score,
        "base_score": base,
    }
    measure, figures = MEASURES[objective], (f"{abs(base):.4g}", f"{abs(score):.4g}")
    if objective == "log_loss":
        about |= {"perplexity": math.exp(-score), "base_perplexity": math.exp(-base)}
        measure, figures = "perplexity", (f"{about['base_perplexity']:.2f}", f"{about['perplexity']:.2f}")
    alone = "the reader under it" if hasattr(best, "over") else "the model alone (k=0)"
    seen = f"{count(validation.tokens, 'validation token')} of {count(len(validation.documents), 'document')}"
    lines = [
        f"{name}: {about['settings']:,} settings compared by {measure} on {seen}",
        f"  best: {shown(best.best_params_)}",
        f"  {figures[0]} for {alone}, {figures[1]} for the best",
    ]
    if not score > base:
        lines.append("  the cache does not help here: its share is 0" if hasattr(best, "over") else NO_HELP)
    return about, lines
