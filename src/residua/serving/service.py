"""What is served: the memories of some tenants, the one model that made them, and who works on what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from residua.errors import InputError, TaskError
from residua.serving.answers import Answerer, Question
from residua.serving.batcher import Batcher
from residua.serving.completions import Completion, Prompt, Writer
from residua.serving.edits import Editor
from residua.serving.limits import Limits
from residua.serving.line import Line
from residua.serving.rows import Given, Numbers, Rows, Texts
from residua.serving.tenants import Tenant, of_one_model

T = TypeVar("T")


class Service:
    """Everything that a server asks, without a server.

    The model, and what answers from memories, have one thread; each tenant's edits have another.

    Parameters
    ----------
    tenants : sequence of Tenant
    model : torch module, fitted estimator, or pair (language model, tokenizer), optional
        Without it, callers bring keys and logits.
    name : str
        What the model by itself is called where completions are asked for.
    shape : sequence of int, optional
        Of one example, for a torch module.
    limits : Limits, optional
    """

    tenants: Mapping[str, Tenant]
    name: str
    limits: Limits
    rows: Rows
    answerer: Answerer
    editor: Editor
    writer: Writer | None
    line: Line
    predicting: Batcher[Question, list[dict[str, Any]]]
    writing: Batcher[Prompt, Completion] | None

    def __init__(
        self,
        tenants: Sequence[Tenant],
        model: Any = None,
        *,
        name: str = "base",
        shape: Sequence[int] | None = None,
        limits: Limits | None = None,
    ):
        self.tenants = {one.name: one for one in tenants}
        self.name, self.limits, first = name, limits or Limits(), tenants[0]
        of_one_model(tenants)
        if name in self.tenants:
            raise InputError(f"a memory and the model are both called {name!r}; call one of them otherwise")
        pair = model if isinstance(model, tuple) else None
        if pair is None and first.memory.schema.is_text:
            raise TaskError("a memory of text is served with its language model and tokenizer; give the model")
        if pair is not None and not first.memory.schema.is_text:
            raise TaskError("a language model was given, and this is no memory of text")
        self.writer = None
        tokenizer = None
        if pair is not None:
            tokenizer = pair[1]
            self.rows = texts = Texts(pair, first.reader)
            self.writer = Writer(pair[0], pair[1], tenants, self.limits.seconds) if texts.is_causal else None
        else:
            self.rows = Given(first.memory) if model is None else Numbers(model, first.reader, shape)
        self.answerer = Answerer(self.rows, tokenizer)
        self.editor = Editor(self.rows, pair, self.limits.capacity)
        self.line = Line(self.limits.queue)
        self._edits: defaultdict[str, Line] = defaultdict(lambda: Line(self.limits.queue))
        sizes = self.limits.batch, self.limits.wait, self.limits.queue
        self.predicting = Batcher(self._alone(self.answerer.predictions), self.line, *sizes)
        self.writing = None if self.writer is None else Batcher(self.writer.write, self.line, *sizes)

    async def asked(self, work: Callable[..., T], *args: Any) -> T:
        """What `work` gives, while nobody else asks the model, which is then itself alone."""
        return await self.line.do(self._alone(work), *args, limit=self.limits.seconds)

    async def edited(self, tenant: Tenant, work: Callable[..., T], *args: Any) -> T:
        """What `work` gives, while nobody else edits this tenant's memory."""
        return await self._edits[tenant.name].do(work, tenant, *args, limit=self.limits.seconds)

    @property
    def waiting(self) -> int:
        """How many requests wait, or are being answered."""
        batchers = (self.predicting, self.writing)
        return len(self.line) + sum(map(len, self._edits.values())) + sum(len(one) for one in batchers if one)

    def close(self) -> None:
        """End what was begun, and give the model back."""
        self.predicting.close()
        if self.writing is not None:
            self.writing.close()
        for line in (self.line, *self._edits.values()):
            line.close()
        if self.writer is not None:
            self.writer.close()

    def _alone(self, work: Callable[..., T]) -> Callable[..., T]:
        def done(*args: Any) -> T:
            with nullcontext() if self.writer is None else self.writer.disabled():
                return work(*args)

        return done
