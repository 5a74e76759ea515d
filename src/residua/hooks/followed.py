"""Whose text it is: it belongs to the model's own cache, and what becomes of the cache becomes of the text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from residua.errors import ParameterError
from residua.hooks.forward import padding_in
from residua.hooks.history import Text

# By what names models take, and give, what they keep of the text before: transformers caches, and others.
PASTS = ("cache", "past_key_values", "cache_params", "state", "mems")
TEXT = "_residua_text"  # where a cache has its text
ELSEWHERE = "this model keeps the text before elsewhere"


def open_text(given: Mapping[str, Any], key: str) -> None:
    """Before the model runs: an empty cache begins a text, and one that is shorter than its text has been cropped."""
    past = _past_in(given)
    if not _counts(past):
        return
    held, text = _positions(past), getattr(past, TEXT, None)
    if held == 0:
        _hang(past, Text(key))
    elif text is not None and held is not None:
        text.cut(held)
    elif text is not None and text.touched:  # unseen, and nothing says how far
        _hang(past, Text(None))


def text_of(mask_name: str, given: Mapping[str, Any], output: Any, key: str, sequences: int, read: int) -> Text:
    """The text that goes on with the positions just read, `read` of each sequence, or that they are the whole of;
    ``ParameterError`` where what came before is not known."""
    past, kept = _past_in(given), _past_in(output)
    if past is None or (_counts(past) and _positions(past) == 0):  # or left empty by a model of whole texts
        mask = padding_in(mask_name, given)
        goes_on = mask is not None and mask.shape[1] > read
        will_go_on = kept is not None and bool(given.get("use_cache"))
        if (goes_on or will_go_on) and not _counts(kept):
            raise _lost(ELSEWHERE)
        text = Text(key)
        if _counts(kept) and _positions(kept) in (read, None):
            _hang(kept, text)
        return text
    if not _counts(past):
        raise _lost(f"the text before came as a {type(past).__name__}, which cannot be followed")
    held, text = _positions(past), getattr(past, TEXT, None)
    if held is not None and held < read:
        raise _lost(ELSEWHERE)
    seen = 0 if text is None or text.key != key else len(text)
    if text is None or text.key != key or held not in (None, seen + read) or text.sequences not in (0, sequences):
        raise ParameterError(
            f"a ContinuousCache has seen {seen} of the {'unknown' if held is None else held - read} positions before; "
            "the others were read while the memory was disabled or not attached, or their cache was changed by hand: "
            "read the text from its beginning, with the memory attached and a new cache"
        )
    return text


def _lost(why: str) -> ParameterError:
    return ParameterError(
        f"a ContinuousCache follows a text by the model's transformers cache of it, and {why}; "
        "pass use_cache=False and whole texts, as generate(use_cache=False) does, or attach the reader it is over"
    )


def _past_in(values: Any) -> Any:
    """What the arguments of a call, or what the model returned, hold of the text before."""
    if isinstance(values, (tuple, list)):
        return next(filter(_counts, values), None)
    found = (values.get(name) if isinstance(values, Mapping) else getattr(values, name, None) for name in PASTS)
    return next((past for past in found if past is not None), None)


def _counts(past: Any) -> bool:
    """Whether it is a cache as transformers has them, which knows how long it is."""
    return hasattr(past, "get_seq_length")


def _positions(past: Any) -> int | None:
    """How many positions a cache holds; None where a recurrent model's does not count them."""
    try:
        return int(past.get_seq_length())
    except ValueError:
        return None if past.has_previous_state() else 0


def _hang(past: Any, text: Text) -> None:
    if not hasattr(past, TEXT):
        past.__class__ = _telling(type(past))
    setattr(past, TEXT, text)


@cache
def _telling(kind: type) -> type:
    """The same class of caches, whose instances tell their text what is done to them.

    A copy of such a cache has a copy of the text, pickled ones too, and the text goes when the cache goes.
    """

    def reorder_cache(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.reorder_cache(self, *args, **kwargs)
        getattr(self, TEXT).select(*args, *kwargs.values())

    def batch_select_indices(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.batch_select_indices(self, *args, **kwargs)
        getattr(self, TEXT).select(*args, *kwargs.values())

    def batch_repeat_interleave(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.batch_repeat_interleave(self, *args, **kwargs)
        getattr(self, TEXT).repeat(*args, *kwargs.values())

    def crop(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.crop(self, *args, **kwargs)
        text, held = getattr(self, TEXT), _positions(self)
        text.cut(len(text) + sum((*args, *kwargs.values())) if held is None else held)

    def get_recurrent_state(self: Any, *args: Any, **kwargs: Any) -> Any:
        getattr(self, TEXT).touched = True  # who asks for it goes on from it, in place
        return kind.get_recurrent_state(self, *args, **kwargs)

    def reset(self: Any) -> None:
        kind.reset(self)
        setattr(self, TEXT, Text(getattr(self, TEXT).key))

    def __reduce__(self: Any) -> tuple[Any, ...]:
        return _revived, (kind,), vars(self)

    methods = (reorder_cache, batch_select_indices, batch_repeat_interleave, crop, get_recurrent_state, reset)
    own = {method.__name__: method for method in methods if hasattr(kind, method.__name__)}
    return type(kind.__name__, (kind,), own | {"__reduce__": __reduce__, "__module__": __name__})


def _revived(kind: Any) -> Any:
    made: Any = _telling(kind)
    return made.__new__(made)
