"""What every setting scored, as equally long columns, and the reader that scored best."""

from __future__ import annotations

import numpy as np

from residua.readers import Reader


def losses(summed: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """The measures of settings whose log-likelihoods over `n` tokens are `summed`."""
    loss = -summed / n
    return {"log_loss": loss, "perplexity": np.exp(np.minimum(loss, 700)), "score": -loss}


def best_of(reader: Reader, results: dict[str, np.ndarray], grid: dict) -> Reader:
    """The reader with the best of these settings (the first of equals), carrying them all."""
    chosen = int(np.argmax(results["score"]))
    params = {name: results[name][chosen].item() for name in grid}
    best = reader.with_params(**params)
    best.best_params_, best.best_score_, best.cv_results_ = params, float(results["score"][chosen]), results
    return best


def flat(measures: dict[str, np.ndarray], grid: dict, reader: Reader) -> dict[str, np.ndarray]:
    """One row per setting, smallest k first; k = 0 has one row per temperature and keeps the reader's other values."""
    axes = np.meshgrid(*(grid.get(name, [0]) for name in ("k", "sigma", "temperature", "lmbda")), indexing="ij")
    flat = dict(zip(("k", "sigma", "temperature", "lmbda"), (axis.reshape(-1) for axis in axes)))
    out = {name: flat[name].copy() for name in grid}
    out |= {name: values.reshape(-1) for name, values in measures.items()}
    first = np.zeros(axes[0].shape, bool)
    first[0, 0, :, 0] = True
    keep = (flat["k"] > 0) | first.reshape(-1)
    for name in ("sigma", "lmbda"):
        if name in out:
            own = getattr(reader, name)
            out[name][flat["k"] == 0] = own if isinstance(own, float) else grid[name][0]  # not shares by distance
    return {name: values[keep] for name, values in out.items()}
