"""What is measured, cell by cell: a run that is stopped goes on after the last one."""

from residua.errors import ParameterError
from residua.papers.knnlm.compare import across, in_domain
from residua.papers.knnlm.interpolation import against
from residua.papers.knnlm.language import Language
from residua.papers.knnlm.places import placed, places
from residua.papers.knnlm.quantised import distances
from residua.papers.knnlm.sizes import at_size
from residua.papers.work import Work


def run(work: Work, *, domain: tuple[str, ...], sizes: tuple[float, ...], **settings) -> dict:
    """All tables and figures.

    Returns
    -------
    dict
        ``own`` (see ``compare.compared``), ``domains`` (a list of the same, with ``name`` and ``against``), ``sizes``,
        ``quantised``, ``places``, ``against`` (each what its module gives), ``model``, ``window`` and ``stride``.

    Raises
    ------
    ParameterError
        An option out of its range.
    """
    named = [given.partition("=")[::2] for given in domain if given]
    if not all(name and folder for name, folder in named):
        raise ParameterError(f"domain={','.join(domain)}; expected NAME=FOLDER or NAME=package:PACKAGE, each")
    for name in ("memory_tokens", "eval_tokens"):
        if settings[name] < 1:
            raise ParameterError(f"{name}={settings[name]}; expected at least 1")
    if not all(0 < share <= 1 for share in sizes):
        raise ParameterError(f"sizes={sizes}; expected shares above 0, up to 1")
    language = Language(settings)
    own = work.map(in_domain, [(settings,)], desc="own domain")[0]
    domains = work.map(across, [(settings, name, folder) for name, folder in named], desc="other domains")
    by_size = work.map(at_size, [(settings, share) for share in sorted({*sizes, 1.0})], desc="sizes")
    codes, exact = work.map(distances, [(settings, False), (settings, True)], desc="distances")
    cells = [(settings, name, key) for name, key in places(language.model, language.tokenizer).items()]
    keys = work.map(placed, cells, desc="keys")
    residuals = work.map(against, [(settings, folder) for folder in (None, *(f for _, f in named))], desc="ResMem")
    return {
        "model": {
            "type": language.model.config.model_type,
            "parameters": sum(weights.numel() for weights in language.model.parameters()),
            "vocabulary": language.model.config.vocab_size,
        },
        "window": settings["window"],
        "stride": settings["stride"],
        "own": own,
        "domains": [{**one, "against": found} for one, found in zip(domains, residuals[1:])],
        "sizes": by_size,
        "quantised": codes and {"codes": codes, "exact": exact},
        "places": keys,
        "against": residuals[0],
    }
