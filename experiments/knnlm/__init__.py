"""kNN-LM (arXiv 1911.00172): Tables 1, 4, 5, Figures 2, 4, 5, and ResMem's Table 3, on any causal language model."""

from typing import Literal

from matplotlib.figure import Figure

from experiments.figures import legend_below, quiet
from experiments.knnlm import curves, distances, domains, key_layers, residuals
from experiments.knnlm import sizes as by_size
from experiments.knnlm.language import Language
from experiments.table import Table
from experiments.work import Work
from residua.errors import ParameterError

OWN = "own domain"


def measure(
    work: Work,
    *,
    model: str = "../shared/models/code-gpt2",
    texts: str = "",
    validation: str = "",
    test: str = "",
    domain: tuple[str, ...] = ("scikit-learn=package:sklearn",),
    glob: str = "**/*.py",
    window: int = 256,
    stride: int = 192,
    memory_tokens: int = 2_000_000,
    eval_tokens: int = 40_000,
    sizes: tuple[float, ...] = (0.1, 0.25, 0.5),
    index: str = "knnlm-fast",
    checkpoints: str = "out/knnlm",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """All tables and figures.

    Parameters
    ----------
    model : str
        A transformers causal language model: folder or name.
    texts : str
        Folder to remember; by default Python's own library, by the split.json beside the model.
    validation : str
        Folder to tune on; without it and --test, files of --texts are set aside.
    test : str
        Folder to score.
    domain : tuple of str
        Other texts, NAME=FOLDER or NAME=package:PACKAGE (its source).
    glob : str
        Which files of a folder.
    window : int
        Tokens the model sees at a time.
    stride : int
        By how much windows advance.
    memory_tokens : int
        Tokens to remember, of each domain.
    eval_tokens : int
        Tokens to score, of each domain; half as many others are tuned on.
    sizes : tuple of float
        Shares of the memory to measure, beside all of it.
    index : str
        As rs.Memory takes it; knnlm is the paper's recipe, which takes long to train.
    checkpoints : str
        Folder for memories; a build that was stopped goes on from there.
    device : str
        Where the model runs.
    """
    settings = {name: value for name, value in locals().items() if name not in ("work", "domain", "sizes")}
    named = [given.partition("=")[::2] for given in domain if given]
    if not all(name and folder for name, folder in named):
        raise ParameterError(f"domain={','.join(domain)}; expected NAME=FOLDER or NAME=package:PACKAGE, each")
    if memory_tokens < 1 or eval_tokens < 1 or not all(0 < share <= 1 for share in sizes):
        raise ParameterError(
            f"memory_tokens={memory_tokens}, eval_tokens={eval_tokens}, sizes={sizes}; expected at least 1 token each, "
            "and shares above 0, up to 1"
        )
    language = Language(settings)
    own = work.map(domains.in_domain, [(settings,)], "own domain")[0]
    others = work.map(domains.across, [(settings, name, folder) for name, folder in named], "other domains")
    sized = work.map(by_size.at_size, [(settings, share) for share in sorted({*sizes, 1.0})], "sizes")
    codes, exact = work.map(distances.distances, [(settings, False), (settings, True)], "distances")
    layers = key_layers.key_layers(language.model, language.tokenizer)
    keys = work.map(key_layers.placed, [(settings, name, key) for name, key in layers.items()], "keys")
    added = work.map(residuals.against, [(settings, folder) for folder in (None, *(f for _, f in named))], "ResMem")
    return {
        "model": {
            "type": language.model.config.model_type,
            "parameters": sum(weights.numel() for weights in language.model.parameters()),
            "vocabulary": language.model.config.vocab_size,
        },
        "window": window,
        "stride": stride,
        "own": own,
        "domains": [{**one, "against": found} for one, found in zip(others, added[1:])],
        "sizes": sized,
        "quantised": codes and {"codes": codes, "exact": exact},
        "places": keys,
        "against": added[0],
    }


def tables(results: dict) -> dict[str, Table]:
    """Table 1 (``own``), Table 4 (by the domain's name), Figures 2, 4, 5, Table 5 (``keys``), ResMem's Table 3."""
    corpora, added = _corpora(results)
    quantised = results["quantised"]
    return {
        "own": domains.table(results["own"], domains.AT_HOME),
        **{one["name"]: domains.table(one, domains.ELSEWHERE) for one in results["domains"]},
        "sizes": by_size.table(results["sizes"]),
        "k": curves.table("k", "k", corpora),
        "lmbda": curves.table("lmbda", "λ", corpora),
        **{f"sigma {name}": curves.widths_table(name, one) for name, one in corpora.items()},
        **({"distances": distances.table(quantised, results["own"])} if quantised else {}),
        "keys": key_layers.table(results["places"]),
        **{f"residuals {name}": residuals.table(found) for name, found in added.items()},
    }


def _corpora(results: dict) -> tuple[dict, dict]:
    """What was compared, and residuals against labels, each by the corpus's name; the model's own domain first."""
    others = {one["name"]: one for one in results["domains"]}
    added = {OWN: results["against"], **{name: one["against"] for name, one in others.items()}}
    return {OWN: results["own"], **others}, added


def draw(results: dict) -> Figure:
    """Tables 1 and 4, Figures 2, 4 and 5, and ResMem's Table 3."""
    own, model = results["own"], results["model"]
    corpora, added = _corpora(results)
    figure = Figure(figsize=(13, 14), layout="constrained", facecolor="white")
    rows = figure.subfigures(3, 1)
    readers = rows[0].subplots(1, 1 + bool(results["domains"]), squeeze=False)[0]
    domains.panel(readers[0], "Table 1: own domain", own, domains.AT_HOME)
    for axes, one in zip(readers[1:], results["domains"]):
        domains.panel(axes, f"Table 4: {one['name']}", one, domains.ELSEWHERE)
    left, right = rows[1].subplots(1, 2)
    by_size.panel(left, results["sizes"], own["base"]["perplexity"])
    curves.neighbours_panel(right, own)
    left, right = rows[2].subfigures(1, 2)
    curves.shares_panel(left.subplots(), corpora)
    residuals.panel(right.subplots(), added)
    legend_below(left, left.axes, columns=1)
    legend_below(right, right.axes, columns=2)
    for axes in figure.axes:
        quiet(axes)
        axes.title.set_fontsize(11)
    parameters = f"{model['parameters'] / 1e6:.1f} M parameters"
    figure.suptitle(f"A memory of {own['rows']:,} tokens for a {model['type']} of {parameters}", fontsize=13)
    return figure
