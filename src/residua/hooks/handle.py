"""``attach``, and the handle by which a memory is held to a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakSet

from torch import nn

from residua.caution import warn
from residua.core.source import KEYS_ONLY
from residua.encoding.fingerprint import source_of_module
from residua.encoding.item import FUNCTION
from residua.encoding.probe import answered, watched
from residua.encoding.torch import frozen
from residua.errors import EncodeError, InputError, ParameterError
from residua.hooks.correction import Correction
from residua.readers import Reader


def attach(model: nn.Module, reader: Reader, *, key: str | None = None) -> Handle:
    """Let a model answer with its memory: ``model(x)`` gives what the reader says, until the handle is detached.

    By forward hooks alone, in place: parameters, ``state_dict`` and ``model.forward`` stay as they are.

    Parameters
    ----------
    model : nn.Module
        The model that made the memory's keys. It returns its logits (n, L), or predictions, or those of every position
        of sequences (b, t, L), as a tensor, ``.logits``, ``["logits"]``, or the first tensor of a tuple; the rest is
        kept.
    reader : Reader
    key : str, optional
        As in ``encode``; needed for a memory of bare arrays alone.

    Returns
    -------
    Handle
        A context manager. Without ``with``, the memory stays attached until ``handle.detach()``; ``Handle.of(model)``
        finds a lost one.

    Raises
    ------
    SourceMismatchError, ParameterError, KeyModuleError, EncodeError, InputError
        That this model and layer made the memory is checked here, not at every prediction.
    KeyModuleError, ShapeError, NonFiniteError
        At prediction; the key module must run exactly once.

    Notes
    -----
    Logits become those whose ``softmax`` is ``reader.predict_proba`` and ``argmax`` ``reader.predict`` (to the
    precision of the model's dtype, which the output keeps, like its device), with the ``logsumexp`` of the model's own:
    a memory without influence changes nothing, whatever is done with them. A lone logit becomes the log-odds, and
    predictions become corrected predictions. A model that gives probabilities or percentages goes on giving them, and
    an item of a tuple is replaced in its place, as the memory's source says.

    A position of a sequence is a row like any other; where the attention mask says padding, the base's logits stay.
    Logits of positions come back in float32, and where the model was given labels, with their loss.

    No gradient flows through a memory: in training mode the model is the base alone (attaching warns), in evaluation
    mode its outputs require no gradients. With ``k=0`` or an empty memory, and a temperature of 1, the base's own
    output is returned, untouched. A ``copy.deepcopy`` of an attached model is not attached. Several threads may
    call the model at once.

    Examples
    --------
    >>> import torch, residua as rs
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).eval()
    >>> x, y = torch.randn(30, 2), torch.arange(30) % 3
    >>> reader = rs.ResMem(rs.Memory(rs.encode(model, (x, y))), k=1)
    >>> with rs.attach(model, reader) as handle:
    ...     remembered = model(x).argmax(dim=1)
    ...     with handle.disabled():
    ...         base = model(x).argmax(dim=1)
    >>> (remembered == y).all().item(), (base == y).all().item()
    (True, False)
    """
    if not isinstance(model, nn.Module):
        raise EncodeError(
            f"got a {type(model).__name__} where a torch.nn.Module is expected; for scikit-learn estimators there are "
            "residua.sklearn.ResMemClassifier and ResMemRegressor"
        )
    if hasattr(model, "_orig_mod"):
        raise EncodeError(
            "the model is compiled, and a compiled model's inner hooks are optimised away; attach to the module that "
            "was compiled (model._orig_mod) and call that"
        )
    if Correction.of(model) is not None:
        raise InputError(
            f"this {type(model).__name__} has a memory attached already; detach it first, or give its handle "
            "another reader: handle.reader = reader (a lost handle is residua.hooks.Handle.of(model))"
        )
    if model.training:
        warn(f"this {type(model).__name__} is in training mode, where its memory is not used; call model.eval()")
    return Handle(model, Correction(model, reader, _key_of(model, reader, key)))


class Handle:
    """Holds a memory to a model until ``detach`` or the end of its block.

    Attributes
    ----------
    model : nn.Module
    key : str
        As given to ``attach``, or the memory's own.
    """

    model: nn.Module
    key: str

    def __init__(self, model: nn.Module, correction: Correction):
        self.model, self.key, self._correction = model, correction.key, correction
        self._checked = WeakSet([correction.reader.memory])

    @classmethod
    def of(cls, model: nn.Module) -> Handle:
        """The handle of an attached model; ``InputError`` where no memory is."""
        correction = Correction.of(model)
        if correction is None:
            raise InputError(f"no memory is attached to this {type(model).__name__}: rs.attach(model, reader)")
        return cls(model, correction)

    @property
    def reader(self) -> Reader:
        """The reader in use. Another one takes effect at the next prediction; its memory must hold keys of the same
        model and layer, or ``SourceMismatchError``."""
        return self._correction.reader

    @reader.setter
    def reader(self, reader: Reader) -> None:
        # A memory that was here before has been checked; another one's fingerprint costs a pass over the parameters.
        if not isinstance(reader, Reader) or reader.memory not in self._checked:
            with self.disabled():
                _key_of(self.model, reader, self.key)
            self._checked.add(reader.memory)
        self._correction.read_with(reader)

    @property
    def attached(self) -> bool:
        """Whether the model still answers with its memory."""
        return Correction.of(self.model) is self._correction

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the block the model is the base alone, for the thread or asyncio task that opened it: another one's
        calls keep the memory. Blocks may be nested."""
        with self._correction.paused():
            yield

    def detach(self) -> None:
        """Give the model back as it was; twice is once."""
        self._correction.remove()

    def __enter__(self) -> Handle:
        if not self.attached:
            raise InputError("this handle was detached; attach the model again: rs.attach(model, reader)")
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self.attached else "detached"
        return f"Handle({type(self.model).__name__}, key={self.key!r}, {state}, {self.reader!r})"


def _key_of(model: nn.Module, reader: Reader, key: str | None) -> str:
    """The key module, after checking that this model made the reader's memory."""
    if not isinstance(reader, Reader):
        raise ParameterError(
            f"got a {type(reader).__name__} where a reader is expected: rs.ResMem(memory), rs.KNNLM(memory), or what "
            "rs.tune returned"
        )
    source = reader.memory.source
    if key is None:
        if source is None:
            raise ParameterError(
                "this memory was built from bare arrays and does not know which layer its keys are of; pass key=, such "
                "as key='fc:input' (the input of module fc) or key='features' (the output of module features)"
            )
        key = source.key
    if source is not None and source.output == KEYS_ONLY:
        raise EncodeError(
            "this memory is of an embedder's keys, and its model gives embeddings, no classes; "
            "predict with reader.predict(rs.encode(model, x, like=memory))"
        )
    if source is not None and source.item == FUNCTION:
        raise EncodeError(
            "a function picked the outputs that this memory was made of, and nothing can be put in their place; attach "
            "to a module that returns them, or name them when encoding: output=1, output='logits'"
        )
    if source is not None:
        # What the model cannot know (its tokenizer) cannot differ here.
        made = source_of_module(model, key, source.extra, norms=not source.projections)
        made = replace(made, output=source.output, item=source.item, position=source.position)
        if source.probe is not None and not (watched(model) and source.difference(made) is None):
            with frozen(model):
                made = replace(made, probe=answered(source.probe, model, key, position=source.position, twice=False))
        source.require(made)
    return key
