"""kNN-LM's tables and figures in tables: the paper beside ours."""

from residua.papers.knnlm.findings import NAMES, findings
from residua.papers.published import (
    C4_KNNLM,
    C4_T5,
    DOMAIN,
    WIKITEXT103,
    WIKITEXT103_DISTANCES,
    WIKITEXT103_KEYS,
)
from residua.papers.shown import interval, settings
from residua.papers.table import Table

# The paper's test perplexities (test set, Table 1), and Table 4's, which has σ = 1 alone.
IN_DOMAIN = {"cache": "cache", "knnlm_paper": "knnlm", "knnlm+cache": "knnlm+cache"}


def tell(results: dict) -> list[str | Table]:
    """Paragraphs and tables from what ``plan.run`` returned."""
    own, domains = results["own"], results["domains"]
    paper = WIKITEXT103.values
    blocks = [
        _setting(results),
        "**Table 1: the model's own domain**",
        _compared(own, paper["base"][1], {name: paper[key][1] for name, key in IN_DOMAIN.items()}),
    ]
    for one in domains:
        blocks += [
            f"**Table 4: {one['name']}, which the model never saw, by swapping the memory.** {_counts(one)}",
            _compared(one, DOMAIN["wiki model on books"], {"knnlm_paper": DOMAIN["with a memory of books"]}),
        ]
    blocks += [
        "**Figure 2: the size of the memory** (T = 1; each size with a fast index of its own)",
        _sizes(results["sizes"]),
        "**Figure 4: k** (T = 1; σ and λ the best for each k)",
        _curve("k", "k", [own, *domains]),
        "**Figure 5: λ** (T = 1; k and σ the best)",
        _curve("lmbda", "λ", [own, *domains]),
        "**The width σ** (T = 1; all neighbours, λ the best for each σ)",
        *(_widths(one) for one in (own, *domains)),
    ]
    if results["quantised"]:
        blocks += ["**Exact distances of the retrieved keys** (section 5; all neighbours, T = 1)", _distances(results)]
    blocks += [
        "**Table 5: keys** (T = 1; an eighth of the memory, each with a fast index of its own)",
        _keys(results["places"]),
        "**ResMem, Table 3: labels interpolated, or residuals added.** One memory, an eighth of the above; k and σ "
        f"have the highest accuracy on {results['against']['tuned_on']:,} tokens, for each λ. The perplexity of λ = 1 "
        "is that of probabilities kept above the base's, divided by the vocabulary's size.",
        _against(results["against"]),
        *(block for one in domains for block in (f"The same on {one['name']}:", _against(one["against"]))),
        "**What this says.**",
        "\n".join(f"- {line}" for line in findings(results)),
    ]
    return blocks


def _setting(results: dict) -> str:
    model, own = results["model"], results["own"]
    index = own["index"]
    recall = f", recall@{index['recall_k']} {index['recall']:.3f}" if index["recall"] else ""
    return (
        f"A {model['type']} of {model['parameters']:,} parameters and {model['vocabulary']:,} tokens, windows of "
        f"{results['window']} tokens, stride {results['stride']}; keys are the input of the last feed-forward network. "
        f"{_counts(own)} Index {index['name']}{recall}; the typical distance between neighbouring keys is "
        f"{own['typical']:.3g}. No document is in two sets, every setting is chosen on the documents tuned on, and "
        "every number is of the scored ones; intervals are 95 %, over documents. The paper's numbers are "
        "WikiText-103's and Books', of a model of 247 M parameters: what can be compared is the change."
    )


def _counts(one: dict) -> str:
    said = {
        name: f"{tokens:,} tokens of {documents:,} documents" for name, (documents, tokens) in one["counts"].items()
    }
    return f"{said['memory']} are remembered, {said['tune']} tuned on, {said['score']} scored."


def _compared(one: dict, paper_base: float, paper: dict[str, float]) -> Table:
    base = one["base"]
    rows = [["base", f"{paper_base:.2f}", f"{base['perplexity']:.2f}", "", "", f"{base['accuracy']:.2f}", "", ""]]
    for name, shown in NAMES.items():
        if name not in one["readers"]:
            continue
        reader, printed = one["readers"][name], paper.get(name)
        rows.append(
            [
                shown,
                f"{printed:.2f}" if printed else "",
                f"{reader['perplexity']:.2f}",
                f"{100 * (printed / paper_base - 1):+.1f}" if printed else "",
                interval(reader["change"]),
                f"{reader['accuracy']:.2f}",
                interval(reader["gain"]),
                _settings(reader["settings"]),
            ]
        )
    columns = (
        "perplexity, accuracy",
        "paper",
        "ours",
        "paper: %",
        "ours: %",
        "accuracy, %",
        "gain, points",
        "settings",
    )
    return Table(columns, rows)


def _settings(found: dict) -> str:
    if "window" in found:
        return f"window {found['window']}, θ {found['theta']:.3g}, λ {found['lmbda']:.3g}"
    if found["k"] == 0:
        return f"T {found['temperature']:.3g}"
    if isinstance(found.get("lmbda"), dict):
        shares = found["lmbda"]["shares"]
        return f"λ {max(shares):.2f} (near) to {min(shares):.2f}, {len(shares)} buckets"
    if found["k"] < 1000:
        return settings(found)
    return f"k {found['k']}, " + settings(found).partition(", ")[2]


def _sizes(found: list[dict]) -> Table:
    rows = [
        [
            f"{100 * one['share']:g} %",
            f"{one['rows']:,}",
            f"{one['perplexity']:.2f}",
            f"{one['lmbda']:.2f}",
            f"{one['k']}",
            f"{one['sigma']:.3g}",
        ]
        for one in found
    ]
    return Table(("memory", "tokens", "perplexity", "best λ", "best k", "best σ"), rows)


def _curve(name: str, symbol: str, corpora: list[dict]) -> Table:
    """Perplexities under one moving setting, a column for each corpus."""
    heads = ["own domain", *(one["name"] for one in corpora[1:])]
    by = [{point[name]: point["perplexity"] for point in one["curves"][name]} for one in corpora]
    rows = [
        [f"{value:g}", *(f"{found[value]:.2f}" if value in found else "" for found in by)]
        for value in sorted(set().union(*by))
    ]
    return Table((symbol, *heads), rows)


def _widths(one: dict) -> Table:
    rows = [
        [f"{point['sigma']:.3g}", f"{point['perplexity']:.2f}", f"{point['lmbda']:.2f}"]
        for point in one["curves"]["sigma"]
    ]
    return Table((f"σ, {one.get('name', 'own domain')}", "perplexity", "best λ"), rows)


def _distances(results: dict) -> Table:
    own, paper = results["own"]["curves"], WIKITEXT103_DISTANCES.values
    depth = results["own"]["index"]["rerank"]
    as_used = {"best": own["k"][-1], "paper": min(own["lmbda_paper"], key=lambda point: point["tuned"])}
    found = [("to the index's codes", paper["codes"], results["quantised"]["codes"])]
    if depth is not True and 0 < depth < own["k"][-1]["k"]:
        found.append((f"exact of the first {depth}, as elsewhere here", None, as_used))
    found.append(("exact", paper["exact"], results["quantised"]["exact"]))
    rows = [
        [
            label,
            f"{printed:.2f}" if printed else "",
            f"{one['paper']['perplexity']:.2f}",
            f"{one['best']['perplexity']:.2f}",
            f"{one['best']['sigma']:.3g}",
        ]
        for label, printed, one in found
    ]
    return Table(("distances", "paper", "ours, σ = 1", "ours, σ tuned", "σ"), rows)


def _keys(found: list[dict]) -> Table:
    rows = [
        [
            one["name"],
            f"{WIKITEXT103_KEYS[one['name']]:.2f}",
            f"{one['perplexity']:.2f}",
            f"{one['lmbda']:.2f}",
            f"{one['sigma']:.3g}",
        ]
        for one in found
    ]
    return Table(("key", "paper", "ours", "λ", "σ"), rows)


def _against(found: dict) -> Table:
    base, paper = found["base"], dict(zip(C4_KNNLM["lmbda"], C4_KNNLM["knnlm"]))
    rows = [
        ["λ = 0: base", f"{paper[0.0]:.2f}", f"{base['accuracy']:.2f}", "", "", "", f"{base['perplexity']:.2f}", ""]
    ]
    for reader in found["knnlm"]:
        share = reader["settings"]["lmbda"]
        rows.append(_row(f"kNN-LM, λ = {share:g}", f"{paper[share]:.2f}", reader))
    labels = {
        "paper": f"ResMem, the paper's k {C4_T5['settings']['k']}, σ {C4_T5['settings']['sigma']:g}",
        "accuracy": "ResMem, tuned for accuracy",
        "log_loss": "ResMem, tuned for perplexity",
    }
    for name, label in labels.items():
        rows.append(_row(label, f"{C4_KNNLM['resmem']:.2f}" if name == "paper" else "", found["resmem"][name]))
    small = C4_T5["small"]
    rows.append(["(paper, T5-small)", f"{small['resmem']:.2f}", "", "", f"{small['tpr']}", f"{small['fpr']}", "", ""])
    return Table(("", "paper, %", "accuracy, %", "gain, points", "TPR", "FPR", "perplexity", "settings"), rows)


def _row(label: str, printed: str, reader: dict) -> list[str]:
    rates = [f"{reader['accuracy']:.2f}", interval(reader["gain"]), f"{reader['tpr']:.2f}", f"{reader['fpr']:.2f}"]
    return [label, printed, *rates, f"{reader['perplexity']:.2f}", _settings(reader["settings"])]
