"""What may be handed to ``encode``, and an option that every way of encoding takes: ``like=``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypedDict

from residua.core import Source, Task
from residua.errors import ParameterError

Tokenizer: TypeAlias = Callable[..., Any]  # a transformers tokenizer, or what can be called like one


class Frame(Protocol):
    """A data frame of any library, whose columns are taken by their names."""

    def __getitem__(self, name: Any, /) -> Any: ...
    def __dataframe__(self, *args: Any, **options: Any) -> Any: ...


# A text, (name, text), (source, target), a file, a row, the messages of a conversation.
Text: TypeAlias = str | tuple[str, Any] | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]
Texts: TypeAlias = str | os.PathLike[str] | Iterable[Text] | Mapping[str, Iterable[Any]] | Frame


class Items(Protocol):
    """Examples by their number: a map-style dataset, or a list."""

    def __getitem__(self, index: Any, /) -> Any: ...
    def __len__(self) -> int: ...


class Estimator(Protocol):
    """A fitted scikit-learn estimator."""

    # Not its predict, which some (a pipeline, a search) only have by a descriptor.
    def fit(self, *args: Any, **params: Any) -> Any: ...
    def get_params(self, *args: Any, **params: Any) -> Any: ...


class Splitter(Protocol):
    """What scikit-learn cuts rows into folds by."""

    def split(self, *args: Any, **params: Any) -> Iterator[Any]: ...


class HasSource(Protocol):
    """An Encoded, a memory, a ``TextStream``: what may know whose keys it holds."""

    @property
    def source(self) -> Source | None: ...


class HasMemory(Protocol):
    """A reader."""

    @property
    def memory(self) -> HasSource: ...


Known: TypeAlias = Source | HasSource | HasMemory  # what ``like=`` takes


class ReadingOptions(TypedDict, total=False):
    """How texts are read, as in ``TextStream``."""

    text_column: str
    name_column: str | None
    glob: str
    errors: Literal["strict", "replace", "skip"]
    hidden: bool
    root: str | os.PathLike[str] | None
    source_column: str
    target_column: str


class TextOptions(ReadingOptions, total=False):
    """Also how they are cut, and which keys are taken."""

    key: str | None
    window: int | None
    stride: int | None
    min_context: int | None
    end_of_text: bool | None
    split_special_tokens: bool | None
    batch_size: int | None


class StreamOptions(TextOptions, total=False):
    """All that ``encode`` takes beside a language model and texts."""

    logits: bool
    like: Known | None
    progress: bool | None


class Like(NamedTuple):
    """Whose keys are wanted, for which task, and how texts were cut (empty where that is not known)."""

    source: Source
    task: Task | None
    windowing: dict[str, Any]
    n_outputs: int | None  # how many classes (or targets) there are; a Source does not know


def known_by(like: Known | None) -> Like | None:
    """What an Encoded, a memory, a reader's memory, a ``TextStream`` or a Source knows; None for None."""
    if like is None:
        return None
    holder = like if hasattr(like, "source") or isinstance(like, Source) else getattr(like, "memory", None)
    source = holder if isinstance(holder, Source) else getattr(holder, "source", None)
    if not isinstance(source, Source):
        what = f"like= is a {type(like).__name__} that does not know its model"
        raise ParameterError(f"{what}; expected what rs.encode returned, or a memory of it")
    windowing = getattr(holder, "about", {}).get("windowing", {})
    return Like(source, getattr(holder, "task", None), windowing, getattr(holder, "n_outputs", None))
