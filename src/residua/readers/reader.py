"""What every reader is: a memory, parameters, and one loop that answers from both."""

from __future__ import annotations

import inspect
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cache, wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, Unpack, cast

import numpy as np
import torch
from torch import Tensor

from residua import html
from residua.caution import warn
from residua.core import Array, Encoded, Ids, Logits, Prediction, Registry, as_tensor, batches
from residua.core.renamed import renamed
from residua.errors import IdError, MemoryFileError, ParameterError, ShapeError, StorageError, TaskError
from residua.folder import MANIFEST, require_reader
from residua.hub import HubOptions, Shared, fetched
from residua.index import Index
from residua.memory import Memory
from residua.printable import short
from residua.readers.evidence import Evidence
from residua.readers.familiarity import Familiarity, depth, measured, own_measures
from residua.readers.seen import Seen


class TextState(Protocol):
    """What a reader that looks back keeps from row to row of a text."""

    def remember(self, keys: Tensor, tokens: Array, documents: Array) -> None:
        """What really came after rows that were read: keys (q, d), tokens (q,), documents (q,), in order."""


QUERIES = 2048  # rows searched at a time
UNKNOWN = -1  # what predict(unknown=) answers of an unfamiliar row
OWN: Literal["own"] = "own"  # exclude="own": each row's own id
Exclude: TypeAlias = Literal["own"] | Ids | None

R = TypeVar("R", bound="Reader")
P = ParamSpec("P")
T = TypeVar("T")

READERS: Registry[type[Reader]] = Registry("reader", "@residua.readers.register_reader")


def register_reader(cls: type[R]) -> type[R]:
    """Make a reader class known by its name, to ``load`` and to the command line."""
    READERS.register(cls.__name__, cls)
    return cls


def reader_class(name: str) -> type[Reader]:
    """The registered reader of that name, in any letters."""
    return READERS.get(next((known for known in READERS if known.lower() == name.lower()), name))


def of_one_moment(verb: Callable[Concatenate[R, P], T]) -> Callable[Concatenate[R, P], T]:
    """A verb of a reader and data, during which the memory stays as it is, where the data are all there.

    Of data that stream by, for which a model may run in between, each block is of one moment.
    """

    @wraps(verb)
    def whole(reader: Any, *args: Any, **kwargs: Any) -> T:
        there = not args or args[0] is None or isinstance(args[0], (Encoded, list, tuple))
        # What is no reader is refused by the verb.
        held = [reader.memory, *reader.beside().values()] if there and isinstance(reader, Reader) else []
        with ExitStack() as stack:
            for memory in held:
                stack.enter_context(memory.reading())
            return verb(cast(R, reader), *args, **kwargs)

    return cast(Callable[Concatenate[R, P], T], whole)


@renamed({"gate": "skip", "cv_results_": "results_", "names": "parameter_names", "stream": "start"})
class Reader(Shared):
    """A memory, and how to read it.

    A new one is a registered class. Its constructor takes the memory (or the reader it reads on from) first, then
    parameters, each kept as an attribute of the same name, in JSON types or with a ``to_json``. Derive from
    ``NeighbourReader`` for whatever weighs a memory's neighbours.
    """

    memory: Memory
    k: int  # how many neighbours it reads of each query
    temperature: float

    # Added by ``rs.tune``; the last three where ``adaptive=``, ``skip=`` and ``budget=`` ask for them.
    best_params_: dict[str, Any]
    best_score_: float
    results_: dict[str, np.ndarray]
    evidence_: Evidence
    tuned_on_: Seen
    adaptive_: dict[str, float]
    skipped_: float
    costs_: dict[int, float]

    @abstractmethod
    def __init__(self, *args: Any, **params: Any): ...

    @abstractmethod
    def read(
        self,
        keys: Tensor,
        logits: Logits,
        excluded: Array | None = None,
        *,
        depth: int = 0,
        state: TextState | None = None,
        documents: Array | None = None,
        tokens: Array | None = None,
    ) -> Iterator[tuple[slice, Prediction]]:
        """Answers to queries of keys (q, d) and logits (q, L), block by block: which of them, and their prediction.

        Rows whose ids are `excluded`, int (q,) or (q, m), are left out; at least `depth` neighbours are searched. A
        reader that looks back also gets the `state` that ``start`` gave, the rows' documents int (q,), and the tokens
        int (q,) that really came next.
        """

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_made_once"}  # a copy makes its own

    def at_once(self, keys: Tensor, logits: Tensor) -> Tensor | None:
        """``Prediction.in_gauge`` of a few queries, sooner than by ``read``; None: by that."""
        return None

    def answers(
        self, keys: Tensor, logits: Logits, excluded: Array | None = None, **text: Any
    ) -> Iterator[tuple[slice, Prediction]]:
        """What ``read`` gives, all of the memory as it is now, whatever is edited before somebody looks at it."""
        with self.memory.reading():
            blocks = self._of_now().read(keys, logits, excluded, **text)
            first = next(blocks, None)  # which searches
        if first is not None:
            yield first
        yield from blocks

    def _of_now(self) -> Self:
        """This reader of a memory that stays as it is now."""
        now = self.memory.now
        if now is self.memory:
            return self
        vars(self).setdefault("_made_once", {})  # which both share
        reader = object.__new__(type(self))
        same = {name: one._of_now() if isinstance(one, Reader) else one for name, one in vars(self).items()}
        vars(reader).update(same, memory=now)
        return reader

    def _kept(self, name: str, of: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` gives, made once for one version of the memory and `of`."""
        held, key = vars(self).setdefault("_made_once", {}), (self.memory.version, *of)
        found = held.get(name)
        if found is None or found[0] != key:
            found = held[name] = key, make()
        return found[1]

    @property
    def bytes_per_row(self) -> dict[str, int]:
        """Bytes of one remembered row in RAM: the memory's own, and ``"reader"``, what this reader has made of all rows
        and keeps until an edit, such as the residuals that answer a batch."""
        made: list[Any] = [value for _, value in vars(self).get("_made_once", {}).values()]
        kept = sum(getattr(value, "nbytes", 0) for value in made)
        return self.memory.bytes_per_row | {"reader": kept // max(self.memory.n_rows, 1)}

    @property
    def has_neighbours(self) -> bool:
        """Whether some remembered rows, and not all together, move each answer."""
        return all(held.has_neighbours for held in self._held.values())

    @property
    def learned(self) -> dict[str, Tensor]:
        """Arrays that ``save`` writes into a file beside the parameters, by name: a parameter's, and its own."""
        over = {name: held.learned for name, held in self._held.items()}
        return {f"{name}.{part}": tensor for name, own in over.items() for part, tensor in own.items()}

    def start(self) -> TextState | None:
        """What is kept from row to row of a text; None for a reader that answers each row by itself."""
        return None

    @property
    def is_noop(self) -> bool:
        """Whether the memory has no say at all: k = 0, or nothing remembered."""
        return self.k == 0 or len(self.memory) == 0

    @property
    def is_base(self) -> bool:
        """Whether every answer is the model's own: the memory has no say, and T is 1."""
        return self.is_noop and (self.temperature == 1 or self.memory.task == "regression")

    def predictions(
        self, data: Encoded | Iterable[Encoded], *, exclude: Exclude = OWN, depth: int = 0
    ) -> Iterator[tuple[Encoded, Prediction]]:
        """Answers to all rows of `data`, in order: a few rows (``Encoded``), and their prediction.

        Every verb is written over this. Neighbours are weighed when the prediction is asked for what needs it;
        ``prediction.near`` holds at least `depth`. The rest is as for ``scores``. A reader that looks back needs ids
        and labels (``ParameterError``).
        """
        given = _ids_to_exclude(exclude)
        state, first = self.start(), 0
        for batch in batches(data):
            batch = self.memory.schema.widened(batch)
            self.memory.schema.check_query(batch)
            if state is not None:
                for name in ("ids", "labels"):
                    if getattr(batch, name) is None:
                        raise text_error(type(self).__name__, name)
            for begin in range(0, len(batch), QUERIES):
                part = batch[begin : begin + QUERIES] if len(batch) > QUERIES else batch
                excluded = given[first : first + len(part)] if isinstance(given, np.ndarray) else given and part.ids
                first += len(part)
                text: dict[str, Any] = {"state": state, "documents": part.ids, "tokens": part.labels}
                for rows, prediction in self.answers(as_tensor(part.keys), part.logits, excluded, depth=depth, **text):
                    yield (part if len(prediction) == len(part) else part[rows]), prediction
        if isinstance(given, np.ndarray) and len(given) != first:
            raise IdError(f"exclude has {len(given)} rows for {first} queries; expected one row per query")

    @of_one_moment
    def scores(self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN) -> np.ndarray:
        """The changed scores, float32 (n, L): rows sum to 1 and may leave [0, 1] (logits in a logit space).

        Regression: predictions, float64, of the targets' shape. ShapeError, TaskError, SourceMismatchError or IdError
        for queries that do not fit.

        Parameters
        ----------
        data : Encoded or iterable of Encoded
            Queries, labels not needed; a text's rows come in order.
        exclude : "own", None, or int array of shape (n,) or (n, m)
            Ids whose rows are not neighbours of each query: by default its own, if it has one.
        """
        scores = self._gathered(prediction.scores for _, prediction in self.predictions(data, exclude=exclude))
        return scores[:, 0] if self.memory.task == "regression" and self.memory.flat_labels else scores

    @of_one_moment
    def predict(
        self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN, unknown: float | None = None
    ) -> np.ndarray:
        """Class indices int64 (n,), 0 or 1 of several labels (n, L), or a regression's float64 predictions.

        With `unknown`, such as 0.01, -1 (NaN of a regression) for rows that are *unfamiliar* at that p-value: of rows
        like those remembered about that share is called unknown, too. Other parameters are as for ``scores``.
        """
        if unknown is not None:
            if not 0 < unknown < 1:
                raise ParameterError(f"unknown={unknown!r}; expected a p-value between 0 and 1, such as 0.01")
            data = data if isinstance(data, Encoded) else list(batches(data))
            found, said = self.familiarity(data, exclude), self.predict(data, exclude)
            if unknown * (1 + found.m) < 1:
                warn(
                    f"unknown={unknown:g} is below every p-value: {found.m} remembered rows give none under "
                    f"{1 / (1 + found.m):.2g}. Remember more rows, or raise it"
                )
            said[found.unfamiliar <= unknown] = np.nan if self.memory.task == "regression" else UNKNOWN
            return said
        if self.memory.task == "regression":
            return self.scores(data, exclude)
        found = (now.argmax().cpu().numpy() for _, now in self.predictions(data, exclude=exclude))
        shape = (0,) if self.memory.task == "classification" else (0, self.memory.n_outputs)
        return np.concatenate([np.empty(shape, np.int64), *found])

    @of_one_moment
    def predict_proba(self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN) -> np.ndarray:
        """Probabilities float32 (n, L): ``max(scores, epsilon * p_T)`` renormalised (epsilon: 1/L by default). Of
        several labels each has a probability of its own, as one of two classes (epsilon: 1/2).

        Positive where the base's are, so log-loss is finite. With ``epsilon`` up to 1/L the argmax is that of
        ``scores``. Parameters as for ``scores``; ``TaskError`` for a regression memory.
        """
        if self.memory.task == "regression":
            raise TaskError("a regression memory has no class probabilities; call predict")
        return self._gathered(now.probabilities for _, now in self.predictions(data, exclude=exclude))

    @of_one_moment
    def familiarity(self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN) -> Familiarity:
        """What the memory does not know: of each row how *unfamiliar* it is, and how *unsure* the answer, as p-values.

        Each is measured beside at most 2048 of the memory's own rows, which are answered without themselves.
        Distances are to the k-th neighbour (at least the 50th). Those of a network's features tell most between keys
        of length 1: ``rs.Memory(..., normalise=True)``. Parameters are as for ``scores``; ``EmptyMemoryError`` where
        nothing is remembered, ``StorageError`` where the keys were discarded.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> keys = np.random.default_rng(0).normal(size=(500, 2))
        >>> reader = rs.ResMem(rs.Memory(rs.Encoded(keys, np.zeros((500, 2)), (keys[:, 0] > 0).astype(int))))
        >>> found = reader.familiarity(rs.Encoded([[1.0, 0.0], [9.0, 9.0], [0.0, 0.0]], np.zeros((3, 2))))
        >>> (found.unfamiliar < 0.01).tolist(), (found.unsure < 0.1).tolist()
        ([False, True, False], [False, False, True])
        """
        own, k = self._kept("own", (), lambda: own_measures(self)), depth(self)
        return Familiarity.between(measured(self, data, exclude, k), own, k)

    def searching_all(self) -> Self:
        """This reader, skipping no query."""
        return self

    def _gathered(self, blocks: Iterable[Tensor]) -> np.ndarray:
        none = np.empty((0, self.memory.n_outputs), np.float64 if self.memory.task == "regression" else np.float32)
        return np.concatenate([none, *(block.cpu().numpy() for block in blocks)])

    @classmethod
    @cache
    def parameter_names(cls) -> tuple[str, ...]:
        """What the constructor takes beside the memory, in order."""
        return tuple(name for name in inspect.signature(cls).parameters if name != "memory")

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by name."""
        return {name: getattr(self, name) for name in self.parameter_names()}

    def with_params(self, **changed: Any) -> Self:
        """A reader of the same class and memory with some parameters changed; ``ParameterError`` for an unknown one."""
        known = self.parameter_names()
        if unknown := sorted(set(changed) - set(known)):
            raise ParameterError(f"{type(self).__name__} has no parameter {unknown}; it has {known}")
        return self._made(self.params | changed)

    def _made(self, params: dict[str, Any]) -> Self:
        return type(self)(self.memory, **params)

    def to_json(self) -> dict[str, Any]:
        """The reader without its memory, in JSON types."""
        params = {n: v.to_json() if hasattr(v, "to_json") else v for n, v in self.params.items()}
        return {"reader": type(self).__name__, "module": type(self).__module__, "params": params}

    @classmethod
    def from_json(cls, params: dict[str, Any], memory: Memory) -> Self:
        """The reader of `memory` whose ``to_json()["params"]`` these are."""
        return cls(memory, **params)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.params.items() if value is not None)
        return f"{type(self).__name__}({self.memory!r}, {shown})"

    def _repr_html_(self) -> str:
        params = {name: short(value) for name, value in self.params.items() if value is not None}
        return html.facts(type(self).__name__, params) + self.memory._repr_html_()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the memory and these parameters into folder `path`; ``rs.load(path)`` gives both back.

        What ``load`` could not read (no registered class, no JSON types) is a ``StorageError``, and not written.
        """
        self._require_registered()
        about = self.to_json()
        try:
            json.dumps(about)
        except (TypeError, ValueError) as error:
            raise StorageError(
                f"the parameters of this {type(self).__name__} are not all JSON types ({error}); give the odd one a "
                "to_json, and the reader a from_json"
            ) from error
        learned = self.learned
        self.memory._write(path, about | {"learned": learned} if learned else about, self.beside())

    @property
    def version(self) -> int:
        """A count of edits of what it reads: its memory, and memories of its own."""
        return self.memory.version + sum(memory.version for memory in self.beside().values())

    def beside(self) -> dict[str, Memory]:
        """Memories of its own, or of the readers it holds, by the folders that they are saved in, beside the one it
        reads."""
        return {name: memory for held in self._held.values() for name, memory in held.beside().items()}

    @property
    def _held(self) -> dict[str, Reader]:
        """Its parameters that are readers, by name."""
        found = {name: getattr(self, name, None) for name in self.parameter_names()}
        return {name: value for name, value in found.items() if isinstance(value, Reader)}

    def _require_registered(self) -> None:
        """That ``load`` knows this reader's class, and those of the readers it holds."""
        name = type(self).__name__
        if name not in READERS or READERS.get(name) is not type(self):
            raise StorageError(
                f"{name} is not registered, and could be saved but not loaded: put {READERS.decorator} above its class"
            )
        for value in self.params.values():
            if isinstance(value, Reader):
                value._require_registered()


def text_error(reader: str, name: str) -> ParameterError:
    """Of a text to look back at, whose ``"ids"`` or ``"labels"`` are None."""
    return ParameterError(
        f"a {reader} reads texts in order, and needs to know of each row its document (ids) and the token that "
        f"came next (labels); these rows lack {name}"
    )


def _ids_to_exclude(exclude: Exclude) -> Literal["own"] | np.ndarray | None:
    if exclude is None or (isinstance(exclude, str) and exclude == OWN):
        return exclude
    if isinstance(exclude, str):
        raise ParameterError(f'exclude={exclude!r}; expected "own", None, or ids: one row of them per query')
    ids = np.atleast_1d(exclude)
    return ids if ids.size else None


def load(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    index: str | Index | None = None,
    mmap: bool = False,
    trust: bool = False,
    live: bool = False,
) -> Reader:
    """The reader that ``Reader.save`` wrote into folder `path`, with its memory, whose arguments the others are.

    With `live`, the memory is as ``rs.Memory.open`` gives it: every edit is on the disk when the call returns.

    Raises
    ------
    MemoryFileError
        Where there is none (``rs.Memory.load`` reads a memory alone), it is torn, or its class is not registered here:
        what is imported is never chosen by a folder.

    Examples
    --------
    >>> import numpy as np, tempfile, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rs.ResMem(memory, k=2, sigma=0.5).save(folder)
    ...     rs.load(folder).params["sigma"]
    0.5
    """
    file = Path(path) / MANIFEST
    memory, about = Memory._read(path, device, mmap, trust, index=index)
    memory = memory._alive() if live else memory
    try:
        return reader_of(require_reader(Path(path), about), memory)
    except MemoryFileError as error:
        raise MemoryFileError(f"{file}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise MemoryFileError(f"{file} does not describe a reader: {error!r}") from error


def from_pretrained(
    repo_or_folder: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    mmap: bool = False,
    trust: bool = False,
    **options: Unpack[HubOptions],
) -> Reader:
    """``load`` of a folder, or of a repository of the Hugging Face Hub that a reader's ``push_to_hub`` wrote.

    Arguments and errors are those of ``Memory.from_pretrained``; where no reader is saved, a ``MemoryFileError``.

    Examples
    --------
    >>> import numpy as np, residua as rs, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> rs.ResMem(memory, k=2, sigma=0.5).save_pretrained(folder)
    >>> rs.from_pretrained(folder).params["k"]
    2
    """
    with fetched(repo_or_folder, **options) as folder:
        reader = load(folder, device, mmap=mmap, trust=trust)
    reader.memory._leave_if_gone(folder)
    for name, own in reader.beside().items():
        own._leave_if_gone(folder / name)
    return reader


def reader_of(about: dict[str, Any], memory: Memory) -> Reader:
    """The reader of `memory` whose ``to_json`` is `about`."""
    name = about["reader"]
    if name not in READERS:
        where = f", such as {about['module']} where it was saved" if about.get("module") else ""
        raise MemoryFileError(
            f"this is a reader {name!r}, and none of that name is registered; import the module that defines it"
            f"{where}, then load again"
        )
    params, learned = about["params"], about.get("learned", {})
    for parameter, value in params.items():
        own = {n.removeprefix(f"{parameter}."): one for n, one in learned.items() if n.startswith(f"{parameter}.")}
        params = params | ({parameter: value | {"learned": own}} if own and isinstance(value, dict) else {})
    return READERS.get(name).from_json(params, memory)


def misshapen(memory: Memory, keys: Tensor, logits: Logits) -> ShapeError:
    """What is raised where keys and logits are not those of rows of `memory`."""
    return ShapeError(
        f"keys have shape {tuple(keys.shape)} and logits {tuple(logits.shape)}; this memory has keys of "
        f"{memory.dim} and {memory.n_outputs} outputs, and each row has one of both"
    )
