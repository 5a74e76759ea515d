"""kNN-MT (arXiv 2010.00710): a translator of interface messages, and a memory of another program's."""

from matplotlib.figure import Figure

import residua as rs
from experiments.figures import BASE, RESMEM, panels
from experiments.knnmt.catalogues import pairs, split
from experiments.knnmt.translator import translate, translator
from experiments.table import Table
from experiments.work import Work
from residua.errors import MissingDependencyError, ParameterError

MEASURES = ("chrF", "BLEU")
SHOWN = 8  # translations


def measure(
    work: Work,
    *,
    base: tuple[str, ...] = ("weblate", "plone.app.locales", "django", "sphinx", "jupyterlab-language-pack-de-DE"),
    domain: str = "wagtail",
    language: str = "de",
    longest: int = 80,
    steps: int = 4000,
    width: int = 128,
    layers: int = 2,
    vocabulary: int = 3000,
    beams: int = 4,
    checkpoints: str = "out/knnmt",
) -> dict:
    """Train a translator on some packages' messages, remember some of another's, translate the rest.

    Parameters
    ----------
    base : tuple of str
        Installed packages (or folders) with gettext catalogues, to train on.
    domain : str
        Another one: 70 % of its messages are remembered, 12 % tuned on, 18 % scored.
    language : str
        Translated into, from English.
    longest : int
        Characters of a message or its translation; longer ones are left out.
    steps : int
        Of training.
    width : int
        Of the translator.
    layers : int
        Of its encoder, and of its decoder.
    vocabulary : int
        Tokens.
    beams : int
        Of the search, beside greedy decoding.
    checkpoints : str
        Folder for the trained translator.
    """
    if min(longest, steps, width, layers, vocabulary, beams) < 1:
        raise ParameterError("longest, steps, width, layers, vocabulary and beams; expected at least 1 of each")
    settings = {name: value for name, value in locals().items() if name != "work"}
    return work.map(compare, [(settings,)], desc="knnmt")[0]


def compare(settings: dict) -> dict:
    """The translator alone and with its memory: likelihood of the references, and translations of both decodings."""
    taken = settings["language"], settings["longest"]
    own = pairs(settings["domain"], *taken)
    parts = split(own)
    others = dict(pair for place in settings["base"] for pair in pairs(place, *taken))
    trained = sorted((source, others[source]) for source in others.keys() - dict(own).keys())  # none in both
    model, tokenizer = translator(trained, settings)
    memory = rs.lm.remember(model, tokenizer, parts.memory, index="exact", progress=False)
    reader = rs.tune(rs.KNNLM(memory), rs.lm.encode(model, tokenizer, parts.tune, like=memory), progress=False)
    found = rs.lm.evaluate(model, tokenizer, parts.score, reader, label_knn=False, progress=False)
    sources, references = (list(side) for side in zip(*parts.score))
    decoded, said = {}, {}
    for beams in sorted({1, settings["beams"]}):
        said["base"] = translate(model, tokenizer, sources, beams)
        with rs.attach(model, reader):
            said["memory"] = translate(model, tokenizer, sources, beams)
        decoded[str(beams)] = scores(said, references)
    shown = [
        [source, said["base"][row], said["memory"][row], reference]
        for row, (source, reference) in enumerate(parts.score)
        if said["base"][row] != said["memory"][row] and max(map(len, (source, reference))) < 60
    ]
    params = reader.to_json()["params"]
    return {
        "trained": len(trained),
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "pairs": {name: len(part) for name, part in parts._asdict().items()},
        "tokens": {"memory": len(memory), "score": found.n},
        "settings": {name: params[name] for name in ("k", "sigma", "temperature", "lmbda")},
        "perplexity": [found.base_perplexity, found.perplexity],
        "change": [100 * (edge - 1) for edge in (found.perplexity_ratio, *(found.perplexity_ratio_interval or ()))],
        "accuracy": [100 * found.base_accuracy, 100 * found.accuracy],
        "decoded": decoded,
        "shown": shown[:SHOWN],
    }


def scores(said: dict[str, list[str]], references: list[str]) -> dict:
    """chrF and BLEU of the base and with the memory; the p-value of a paired bootstrap."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
        from sacrebleu.significance import PairedTest
    except ImportError as error:
        raise MissingDependencyError('translations are scored by sacrebleu: pip install ".[translation]"') from error
    metrics = dict(zip(MEASURES, (CHRF(references=[references]), BLEU(references=[references]))))
    named = [(name, said[name]) for name in ("base", "memory")]
    _, found = PairedTest(named, metrics, references=None, test_type="bs", n_samples=1000)()
    found.pop("System")
    return {
        name: {"base": base.score, "memory": memory.score, "p_value": memory.p_value}
        for name, (base, memory) in zip(MEASURES, found.values())  # sacrebleu calls chrF by its order too
    }


def tables(results: dict) -> dict[str, Table]:
    """``scores`` of both decodings and of the references, and ``shown``: some translations."""
    change, ends = results["change"][0], results["change"][1:]
    interval = f" ({ends[0]:+.1f} to {ends[1]:+.1f})" if ends else ""
    base, now = results["perplexity"]
    rows = [["perplexity of the references", f"{base:.2f}", f"{now:.2f}", f"{change:+.1f} %{interval}"]]
    base, now = results["accuracy"]
    rows.append(["next token right, %", f"{base:.2f}", f"{now:.2f}", f"{now - base:+.2f}"])
    for beams, found in results["decoded"].items():
        how = "greedy" if beams == "1" else f"{beams} beams"
        for name, one in found.items():
            p = "" if one["p_value"] is None else f" (p = {one['p_value']:.3f})"
            cells = f"{one['base']:.1f}", f"{one['memory']:.1f}", f"{one['memory'] - one['base']:+.1f}{p}"
            rows.append([f"{name}, {how}", *cells])
    shown = [[cell.replace("\n", " ") for cell in row] for row in results["shown"]]
    return {
        "scores": Table(("", "translator", "with the memory", "change"), rows),
        "shown": Table(("message", "translator", "with the memory", "reference"), shown),
    }


def draw(results: dict) -> Figure:
    """chrF and BLEU of each decoding, without and with the memory."""
    figure, axes = panels(1, len(MEASURES), (8, 3.2))
    names = ["greedy" if beams == "1" else f"{beams} beams" for beams in results["decoded"]]
    for panel, name in zip(axes[0], MEASURES):
        for offset, side, colour, label in ((-0.2, "base", BASE, "translator"), (0.2, "memory", RESMEM, "with memory")):
            heights = [found[name][side] for found in results["decoded"].values()]
            places = [place + offset for place in range(len(names))]
            bars = panel.bar(places, heights, 0.36, color=colour, label=label)
            panel.bar_label(bars, fmt="%.1f", fontsize=9)
        panel.set_xticks(range(len(names)), labels=names)
        panel.set_title(name)
        panel.margins(y=0.15)
    axes[0][0].legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
    return figure
