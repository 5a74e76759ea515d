"""kNN-LM drawn: what each reader gains, sizes, k, λ in and out of the domain, keys, and ResMem against every λ."""

from residua.papers.published import C4_KNNLM, WIKITEXT103, WIKITEXT103_LMBDA

BASE, KNN, BOTH, CACHE, RESMEM, PRINTED = "#C8501E", "#7A4FA3", "#0B3C6F", "#6B6B6B", "#1F6FB4", "#B8B8B8"
BARS = (
    ("cache", "cache", CACHE),
    ("knnlm_paper", "kNN-LM\nσ = 1", KNN),
    ("knnlm", "kNN-LM\ntuned", KNN),
    ("knnlm+cache", "kNN-LM\n+ cache", BOTH),
    ("adaptive", "kNN-LM\nλ by\ndistance", KNN),
    ("adaptive+cache", "λ by\ndistance\n+ cache", BOTH),
)
PUBLISHED = {"cache": "cache", "knnlm_paper": "knnlm", "knnlm+cache": "knnlm+cache"}


def draw(results: dict):
    """A matplotlib Figure from what ``plan.run`` returned."""
    from matplotlib.figure import Figure

    own, domains = results["own"], results["domains"]
    figure = Figure(figsize=(13, 12.3), layout="constrained", facecolor="white")
    axes = figure.subplots(3, 2, width_ratios=[1, 1])
    _bars(axes[0, 0], own)
    _swapped(axes[0, 1], domains)
    _sizes(axes[1, 0], results["sizes"], own["base"]["perplexity"])
    _neighbours(axes[1, 1], own)
    _shares(axes[2, 0], own, domains)
    _against(axes[2, 1], results["against"], domains)
    model = results["model"]
    figure.suptitle(
        f"A memory of {own['rows']:,} tokens for a {model['type']} of {model['parameters'] / 1e6:.1f} M parameters",
        fontsize=13,
    )
    return figure


def _bars(axes, own: dict) -> None:
    paper = WIKITEXT103.values
    for i, (name, _, colour) in enumerate(BARS):
        middle, low, high = own["readers"][name]["change"]
        printed = PUBLISHED.get(name)
        shift = 0.2 if printed else 0.0
        axes.bar(i + shift, middle, 0.38, color=colour)
        if low is not None:
            axes.errorbar(i + shift, middle, [[max(0, middle - low)], [max(0, high - middle)]], color="#222222", lw=1)
        axes.text(i + shift + 0.03, 0.5, f"{middle:+.1f}", ha="center", fontsize=9)
        if printed:
            change = 100 * (paper[printed][1] / paper["base"][1] - 1)
            axes.bar(i - shift, change, 0.38, color=PRINTED, label="paper" if name == "cache" else None)
            axes.text(i - shift - 0.03, 0.5, f"{change:+.1f}", ha="center", fontsize=9, color="#777777")
    axes.axhline(0, color="#222222", lw=0.8)
    axes.set_xticks(range(len(BARS)), labels=[label for _, label, _ in BARS], fontsize=9)
    axes.set_ylabel("perplexity against the base, %")
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    axes.use_sticky_edges = False  # room for the numbers above the bars
    axes.margins(y=0.12)
    axes.set_title(f"Table 1: own domain, base {own['base']['perplexity']:.2f}", fontsize=11)
    _quiet(axes)


def _swapped(axes, domains: list[dict]) -> None:
    bars = (
        ("base", "base", BASE),
        ("other_memory", "memory of the\ntraining text", PRINTED),
        ("cache", "cache", CACHE),
        ("knnlm_paper", "own\nmemory,\nσ = 1", KNN),
        ("knnlm", "own\nmemory,\ntuned", KNN),
        ("adaptive+cache", "λ by\ndistance\n+ cache", BOTH),
    )
    width = 0.8 / max(1, len(domains))
    for j, one in enumerate(domains):
        for i, (name, _, colour) in enumerate(bars):
            value = one["base"]["perplexity"] if name == "base" else one["readers"][name]["perplexity"]
            at = i + (j - (len(domains) - 1) / 2) * width
            axes.bar(at, value, 0.92 * width, color=colour)
            axes.text(at, value, f"{value:.1f}", ha="center", va="bottom", fontsize=9)
    axes.set_xticks(range(len(bars)), labels=[label for _, label, _ in bars], fontsize=8.5)
    axes.set_ylabel("perplexity")
    axes.set_title(f"Table 4: {', '.join(one['name'] for one in domains) or 'no other domain'}", fontsize=11)
    _quiet(axes)


def _sizes(axes, sizes: list[dict], base: float) -> None:
    rows = [one["rows"] for one in sizes]
    axes.axhline(base, color=BASE, lw=1.2, label="base")
    axes.plot(rows, [one["perplexity"] for one in sizes], "o-", color=KNN, label="kNN-LM, T = 1")
    axes.set_xscale("log")
    axes.set_xticks(rows, labels=[f"{row / 1000:,.0f} k" for row in rows])
    axes.minorticks_off()
    axes.set_xlabel("tokens remembered")
    axes.set_ylabel("perplexity")
    shares = axes.twinx()
    shares.plot(rows, [one["lmbda"] for one in sizes], "s--", ms=4, color="#999999", label="best λ (right)")
    shares.set_ylim(0, 1)
    shares.set_ylabel("best λ")
    shares.spines[["top", "left"]].set_visible(False)
    axes.legend(handles=[*axes.get_lines(), *shares.get_lines()], frameon=False, fontsize=9, loc="upper right")
    axes.set_title("Figure 2: size of the memory", fontsize=11)
    _quiet(axes)


def _neighbours(axes, own: dict) -> None:
    points = own["curves"]["k"]
    axes.axhline(own["base"]["perplexity"], color=BASE, lw=1.2, label="base")
    axes.plot([p["k"] for p in points], [p["perplexity"] for p in points], "o-", color=KNN, label="kNN-LM, T = 1")
    axes.set_xscale("log", base=2)
    axes.set_xticks([p["k"] for p in points], labels=[str(p["k"]) for p in points], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("k, neighbours")
    axes.set_ylabel("perplexity")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("Figure 4: k", fontsize=11)
    _quiet(axes)


def _shares(axes, own: dict, domains: list[dict]) -> None:
    series = [("own domain", own, WIKITEXT103_LMBDA["in domain"], RESMEM)]
    colours = (KNN, CACHE, BOTH)
    series += [
        (one["name"], one, WIKITEXT103_LMBDA["across domains"], colours[i % len(colours)])
        for i, one in enumerate(domains)
    ]
    for name, one, paper, colour in series:
        base = one["base"]["perplexity"]
        points = one["curves"]["lmbda"]
        changes = [100 * (p["perplexity"] / base - 1) for p in points]
        axes.plot([0, *(p["lmbda"] for p in points)], [0, *changes], "o-", ms=3.5, color=colour, label=name)
        axes.axvline(paper, color=colour, lw=0.9, ls=":")
    axes.set_ylim(None, 30)
    axes.set_xlabel("λ, the neighbours' share (dotted: the paper's best)")
    axes.set_ylabel("perplexity against the base, %")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("Figure 5: λ", fontsize=11)
    _quiet(axes)


def _against(axes, found: dict, domains: list[dict]) -> None:
    for name, one, colour in (("own domain", found, KNN), *((d["name"], d["against"], CACHE) for d in domains[:1])):
        base = one["base"]["accuracy"]
        gains = [(0.0, 0.0), *((reader["settings"]["lmbda"], reader["accuracy"] - base) for reader in one["knnlm"])]
        axes.plot(*zip(*gains), "o-", ms=4, color=colour, label=f"{name}: kNN-LM")
        gain = one["resmem"]["accuracy"]["accuracy"] - base
        axes.axhline(gain, color=colour, lw=1.6, ls="-.", label=f"{name}: ResMem")
    printed = [value - C4_KNNLM["knnlm"][0] for value in C4_KNNLM["knnlm"]]
    axes.plot(C4_KNNLM["lmbda"], printed, "o--", ms=4, color=PRINTED, label="paper (T5-large): kNN-LM")
    axes.axhline(C4_KNNLM["resmem"] - C4_KNNLM["knnlm"][0], color=PRINTED, lw=1.6, ls="--", label="paper: ResMem")
    axes.set_xlabel("λ, the neighbours' share")
    axes.set_ylabel("next-token accuracy over the base, points")
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    axes.set_title("ResMem, Table 3", fontsize=11)
    _quiet(axes)


def _quiet(axes) -> None:
    axes.grid(alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
