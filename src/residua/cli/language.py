"""The language model that a verb means: from a folder, from the hub, or made by a function of your own."""

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from residua.caution import warn
from residua.cli.loaders import model_named
from residua.cli.verbosity import note
from residua.errors import InputError, MissingDependencyError

log: logging.Logger = logging.getLogger(__name__)

DTYPES = ("auto", "float32", "bfloat16", "float16")
EXPECTED = (
    "expected a folder with config.json, weights and a tokenizer (save_pretrained), a name on the Hugging Face hub, or "
    "module:factory for a function of your own that gives (model, tokenizer)"
)


def language_model(spec: str, dtype: str = "auto", device: str = "cpu"):
    """A causal or encoder-decoder language model, ready to predict, and its tokenizer; weights that lack are warned of.

    `spec` is a folder that ``save_pretrained`` wrote, a name on the Hugging Face hub, or ``module:factory``, whose
    factory gives a pair (model, tokenizer). `dtype` "auto" is as transformers loads it, which is the files' own.
    """
    if ":" in spec and not Path(spec).exists():
        model, tokenizer = model_named(spec)
        if tokenizer is None:
            raise InputError(f"{spec!r} gives a {type(model).__name__} alone; expected a pair (model, tokenizer)")
    else:
        model, tokenizer = _pretrained(spec)
    import torch

    if not isinstance(model, torch.nn.Module):
        raise InputError(f"{spec!r} gives a {type(model).__name__}; expected a language model and its tokenizer")
    if dtype != "auto":
        model = model.to(getattr(torch, dtype))
    size = sum(parameter.numel() for parameter in model.parameters())
    log.info("model %s: %s of %s parameters, %s, %s", spec, type(model).__name__, f"{size:,}", model.dtype, device)
    return model.to(device).eval(), tokenizer


def model_of(memory, path: Path, spec: str | None, dtype: str = "auto"):
    """The model and tokenizer of the memory in folder `path`, where the memory is and in the dtype it was made in.

    `spec` and `dtype` (unless "auto") say otherwise.
    """
    known = spec or memory.about.get("model")
    if not isinstance(known, str):
        raise InputError(f"{path} does not say which model made it; name that with --model FOLDER_OR_NAME")
    if not spec:
        _require_here(known, path)
    if dtype == "auto" and memory.source is not None and memory.source.dtype in DTYPES:
        dtype = memory.source.dtype
    try:
        return language_model(known, dtype, str(memory.device))
    except InputError as error:
        if spec:
            raise
        raise InputError(f"{error}. {path} was made by it; if it has moved, name it with --model") from error


def _require_here(known: str, path: Path) -> None:
    """Refuse what the memory in folder `path` says of its model, unless that is a folder, or was loaded from the hub
    before: whoever wrote the memory chooses no code to run and no address to ask."""
    if Path(known).is_dir():
        return
    if ":" in known:
        raise InputError(
            f"{path} says that {known!r} made it, which is code, and no memory's folder chooses what is run; if you "
            f"trust it, say --model {shlex.quote(known)}"
        )
    if _is_path(known) or not _in_cache(known):
        raise InputError(
            f"{path} says that {known!r} made it, which is no folder here and was not loaded from the Hugging Face hub "
            "before; if it has moved, or is to be asked for, name it with --model"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block transformers shows neither its progress bars nor its log; errors are raised all the same."""
    try:
        from huggingface_hub.utils import logging as hub
        from transformers.utils import logging
    except ImportError as error:
        raise MissingDependencyError('these models need transformers: pip install "residua[lm]"') from error
    verbosity, hub_verbosity, bars = logging.get_verbosity(), hub.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


def _pretrained(spec: str):
    """The model and tokenizer in a folder or of a name on the hub."""
    if _is_path(spec) and not Path(spec).is_dir():
        raise InputError(f"there is no folder {spec}; {EXPECTED}")
    with quiet():
        import transformers
        from safetensors import SafetensorError

        try:
            if not Path(spec).is_dir() and not _in_cache(spec):
                note(f"{spec} is no folder here: asking the Hugging Face hub")  # may take long offline
            config = transformers.AutoConfig.from_pretrained(spec)
            kind = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
            model, found = getattr(transformers, kind).from_pretrained(spec, output_loading_info=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(spec)
        except ImportError as error:
            raise MissingDependencyError(f"{spec!r} cannot be loaded: {first_line(error)}") from error
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"no language model can be loaded from {spec!r}: {first_line(error)}; {EXPECTED}"
            ) from error
    warn_if_random(model, sorted(found["missing_keys"]), spec)
    return model, tokenizer


def _is_path(spec: str) -> bool:
    """Whether a model's name is a path: "owner/name" may be on the hub, unless the owner is a folder here."""
    return spec.startswith((".", os.sep, "~")) or spec.count("/") > 1 or ("/" in spec and Path(spec).parent.is_dir())


def _in_cache(spec: str) -> bool:
    """Whether a model of the hub was loaded here before."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise MissingDependencyError('these models need transformers: pip install "residua[lm]"') from error
    try:
        return isinstance(try_to_load_from_cache(spec, "config.json"), str)
    except HFValidationError:  # it is no name of the hub's
        return False


def warn_if_random(model, missing: list[str], spec: str) -> None:
    """Say it where a loaded model lacks weights."""
    if missing:
        lacks = f"{spec} lacks {len(missing)} of the weights of a {type(model).__name__}, such as {missing[0]}"
        warn(f"{lacks}, and they are random: is it another kind of model?")


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
