"""All that can be asked of a server, in one table: where, with what, what comes back, and who answers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from residua.errors import IdError
from residua.printable import short
from residua.serving import fields
from residua.serving.answers import Question
from residua.serving.completions import Prompt
from residua.serving.failures import Refused
from residua.serving.fields import Field
from residua.serving.rows import NAME
from residua.serving.service import Service
from residua.serving.tenants import Tenant

ID = 2**53 - 1  # that every JSON reader keeps exactly
DOCUMENT = 2**22  # characters of a document
NOTE = 200
TOP = 100  # outputs that are listed of a prediction
WORDS = 4  # that stop a completion

Body = dict[str, Any]


@dataclass(frozen=True)
class Route:
    """One thing that can be asked.

    Attributes
    ----------
    method, path, name, summary : str
    answer : Field
        What comes back with status 200.
    respond : callable
        From the tenant that asks and what it sent to the answer.
    body : Field, optional
        What a request holds.
    meant : dict of exception class to int
        What errors mean here, where that is not what they mean elsewhere.
    told : dict of int to str
        Statuses of its own, and why they are said.
    """

    method: str
    path: str
    name: str
    summary: str
    answer: Field
    respond: Callable[[Tenant, Body], Awaitable[Any]]
    body: Field | None = None
    meant: Mapping[type[Exception], int] = field(default_factory=dict[type[Exception], int])
    told: Mapping[int, str] = field(default_factory=dict[int, str])


def routes_of(service: Service) -> list[Route]:
    """The table for one service: what is asked of rows or of texts, with a model or without."""
    return [*_asking(service), *_editing(service), *_about(service), *_writing(service)]


def _asking(service: Service) -> list[Route]:
    row, most = fields.record(service.rows.asked), service.limits.rows
    rows = fields.list_of(row, 1, most).described("What is asked about.")
    prediction = fields.record(
        {"prediction": _said(service), "base_prediction": _said(service), "top": fields.list_of(_output(), 0, TOP)}
    )
    p = fields.real(0, 1)
    known = fields.record({"unfamiliar": p, "unsure": fields.nullable(p), "distance": fields.nullable(_positive())})

    async def predict(tenant: Tenant, body: Body) -> Any:
        asked = Question(tenant, body["rows"], body.get("memory", True), int(body.get("top", 5)))
        return {"predictions": await service.predicting.ask(asked, len(asked.rows), service.limits.seconds)}

    async def explain(tenant: Tenant, body: Body) -> Any:
        shown, exclude = int(body.get("neighbours", 10)), [int(id) for id in body.get("exclude", [])]
        return await service.asked(service.answerer.explanation, tenant, body["row"], shown, exclude)

    async def familiarity(tenant: Tenant, body: Body) -> Any:
        return {"rows": await service.asked(service.answerer.familiarity, tenant, body["rows"])}

    with_memory = fields.flag().described("False asks the model alone.", default=True)
    top = fields.whole(0, TOP).described("How many of the likeliest outputs are listed.", default=5)
    ids = fields.list_of(fields.whole(-(2**63), 2**63 - 1), 0, 100)
    shown = fields.whole(1, 100).described("How many neighbours, and outputs, are shown.", default=10)
    explained = fields.record(
        {
            "prediction": _said(service),
            "base_prediction": _said(service),
            "space": fields.constant("probability", "logit"),
            "scale": fields.nullable(_any_number()).described("What is left of the model's own score."),
            "outputs": fields.list_of(_score(), 0, 1000),
            "neighbours": fields.list_of(_neighbour(service), 0, 100),
            "all_neighbours": fields.whole(0, 2**31),
        }
    )
    return [
        Route(
            "POST",
            "/predict",
            "predict",
            "What the model and the memory say of rows; those of many requests are answered together.",
            fields.record({"predictions": fields.list_of(prediction, 1, most)}),
            predict,
            fields.record({"rows": rows}, {"memory": with_memory, "top": top}),
        ),
        Route(
            "POST",
            "/explain",
            "explain",
            "Which remembered rows moved the prediction of one row, and how far.",
            explained,
            explain,
            fields.record({"row": row}, {"neighbours": shown, "exclude": ids.described("Ids that are left out.")}),
        ),
        Route(
            "POST",
            "/familiarity",
            "familiarity",
            "How unfamiliar rows are to the memory, and how unsure its answers, as p-values.",
            fields.record({"rows": fields.list_of(known, 1, most)}),
            familiarity,
            fields.record({"rows": rows}),
            told={409: "the memory is empty, or holds no keys"},
        ),
    ]


def _editing(service: Service) -> list[Route]:
    id, left = fields.whole(-ID, ID), fields.whole(0, 2**53)
    note = fields.text(NOTE).described("What the memory's log says of it.")
    editor = service.editor
    if service.tenants and next(iter(service.tenants.values())).memory.schema.is_text:
        return _editing_texts(service, note, left)
    label, most = _label(service), service.limits.rows
    row = fields.record(
        {**service.rows.asked, "label": label},
        {"id": id.described("All rows of a request have one, or none."), "name": fields.text(NAME)},
    )

    async def add(tenant: Tenant, body: Body) -> Any:
        made = await service.asked(editor.encoded, body["rows"])
        return await service.edited(
            tenant, editor.add, made, body["rows"], body.get("replace", False), body.get("note")
        )

    async def update(tenant: Tenant, body: Body) -> Any:
        return await service.edited(tenant, editor.relabel, body["rows"], body.get("note"))

    async def forget(tenant: Tenant, body: Body) -> Any:
        return await service.edited(tenant, editor.forget, [int(id) for id in body["ids"]], [], body.get("note"))

    replace = fields.flag().described(
        "Forget the rows of the same ids first, so that a request that was sent again changes nothing.", default=False
    )
    ids = fields.list_of(fields.whole(-(2**63), 2**63 - 1), 1, most)
    unknown = {404: "an id is not in the memory; nothing was changed"}
    return [
        Route(
            "POST",
            "/add",
            "add",
            "Remember labelled rows, all or none: they are on the disk when the answer comes.",
            fields.record({"ids": ids, "added": left, "forgotten": left, "rows": left}),
            add,
            fields.record({"rows": fields.list_of(row, 1, most)}, {"replace": replace, "note": note}),
            meant={IdError: 409},
            told={409: "an id is in the memory already, or the memory is full"},
        ),
        Route(
            "POST",
            "/update",
            "update",
            "Give remembered rows other labels, all or none.",
            fields.record({"updated": left, "rows": left}),
            update,
            fields.record({"rows": fields.list_of(fields.record({"id": id, "label": label}), 1, most)}, {"note": note}),
            meant={IdError: 404},
            told=unknown,
        ),
        Route(
            "POST",
            "/forget",
            "forget",
            "Forget the rows that bear some ids, all or none.",
            fields.record({"forgotten": left, "rows": left}),
            forget,
            fields.record({"ids": ids}, {"note": note}),
            meant={IdError: 404},
            told=unknown,
        ),
    ]


def _editing_texts(service: Service, note: Field, left: Field) -> list[Route]:
    editor, most = service.editor, service.limits.rows
    document = fields.record({"name": fields.text(NAME, 1), "text": fields.text(DOCUMENT, 1)})
    followed = fields.record({"added": left, "forgotten": left, "unchanged": left, "rows": left})
    given = fields.record({"documents": fields.list_of(document, 1, most)}, {"note": note})

    def following(replace: bool) -> Callable[[Tenant, Body], Awaitable[Any]]:
        async def follow(tenant: Tenant, body: Body) -> Any:
            return await service.asked(editor.follow, tenant, body["documents"], replace, body.get("note"))

        return follow

    async def forget(tenant: Tenant, body: Body) -> Any:
        return await service.edited(tenant, editor.forget, [], body["documents"], body.get("note"))

    names = fields.list_of(fields.text(NAME, 1), 1, most).described("Names of documents, or their ids in digits.")
    return [
        Route(
            "POST",
            "/add",
            "add",
            "Remember documents, all or none; one that says something else under its name is refused.",
            followed,
            following(False),
            given,
        ),
        Route(
            "POST",
            "/update",
            "update",
            "Remember documents in the place of those of the same names, all or none; others stay.",
            followed,
            following(True),
            given,
        ),
        Route(
            "POST",
            "/forget",
            "forget",
            "Forget documents, all or none; a text that another document has, too, stays.",
            fields.record({"forgotten": left, "rows": left}),
            forget,
            fields.record({"documents": names}, {"note": note}),
            meant={IdError: 404},
            told={404: "no document, or several, have a name; nothing was changed"},
        ),
    ]


def _about(service: Service) -> list[Route]:
    async def memory(tenant: Tenant, body: Body) -> Any:
        tenant.refresh()
        held = tenant.memory
        return {
            "name": tenant.name,
            "rows": len(held),
            "task": held.task,
            "outputs": held.n_outputs,
            "classes": None if held.schema.classes is None else list(held.schema.classes),
            "reader": short(tenant.reader),
            "edits": len(held.log()),
        }

    known = {name: fields.text(2**16) for name in ("name", "task", "reader")}
    known |= {name: fields.whole(0, 2**53) for name in ("rows", "outputs", "edits")}
    known["classes"] = fields.nullable(fields.list_of(fields.text(2**16), 0, 2**31))
    return [
        Route("GET", "/memory", "memory", "What the memory is, and how many rows it has.", fields.record(known), memory)
    ]


def _writing(service: Service) -> list[Route]:
    writing = service.writing
    if writing is None:
        return []
    model = fields.record(
        {
            "id": fields.text(NAME),
            "object": fields.constant("model"),
            "created": fields.whole(0, 2**53),
            "owned_by": fields.text(NAME),
        }
    )
    begun = int(time.time())

    async def models(tenant: Tenant, body: Body) -> Any:
        names = (tenant.name, service.name)
        listed = [{"id": name, "object": "model", "created": begun, "owned_by": "residua"} for name in names]
        return {"object": "list", "data": listed}

    async def complete(tenant: Tenant, body: Body) -> Any:
        texts, stop, seed = body["prompt"], body.get("stop") or [], body.get("seed")
        prompts = [
            Prompt(
                text,
                _memory_asked(service, tenant, body),
                int(body.get("max_tokens", 16)),
                body.get("temperature", 1.0),
                body.get("top_p", 1.0),
                None if seed is None else int(seed),
                tuple([stop] if isinstance(stop, str) else stop),
            )
            for text in ([texts] if isinstance(texts, str) else texts)
        ]
        asking = (writing.ask(prompt, 1, 2 * service.limits.seconds) for prompt in prompts)
        done = await asyncio.gather(*asking)
        read, new = sum(one.prompt_tokens for one in done), sum(one.completion_tokens for one in done)
        choices = [
            {"index": place, "text": one.text, "finish_reason": one.finish_reason, "logprobs": None}
            for place, one in enumerate(done)
        ]
        return {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": choices,
            "usage": {"prompt_tokens": read, "completion_tokens": new, "total_tokens": read + new},
        }

    prompt, word = fields.text(2**20, 1), fields.text(100, 1)
    neutral = {
        "n": fields.constant(1),
        "best_of": fields.constant(1),
        "stream": fields.constant(False),
        "echo": fields.constant(False),
        "logprobs": fields.constant(None),
        "suffix": fields.constant(None),
        "presence_penalty": fields.constant(0, 0.0),
        "frequency_penalty": fields.constant(0, 0.0),
        "logit_bias": fields.constant(None),
    }
    asked = fields.record(
        {
            "model": _models(service),
            "prompt": fields.either(prompt, fields.list_of(prompt, 1, 64)),
        },
        {
            "memory": fields.nullable(fields.text(NAME, 1)).described(
                "The memory that is read, whatever `model` says; null: none."
            ),
            "max_tokens": fields.whole(1, service.limits.tokens).described("At most.", default=16),
            "temperature": fields.real(0, 2).described("0 takes the likeliest token each time.", default=1),
            "top_p": fields.real(0.01, 1),
            "seed": fields.nullable(fields.whole(0, 2**63 - 1)),
            "stop": fields.nullable(fields.either(word, fields.list_of(word, 0, WORDS))),
            "user": fields.text(NAME),
            **neutral,
        },
    )
    count = fields.whole(0, 2**53)
    choice = fields.record(
        {
            "index": count,
            "text": fields.text(2**31),
            "finish_reason": fields.constant("stop", "length"),
            "logprobs": fields.constant(None),
        }
    )
    usage = fields.record({name: count for name in ("prompt_tokens", "completion_tokens", "total_tokens")})
    completion = fields.record(
        {
            "id": fields.text(100),
            "object": fields.constant("text_completion"),
            "created": count,
            "model": fields.text(NAME),
            "choices": fields.list_of(choice, 1, 64),
            "usage": usage,
        }
    )
    listed = fields.record({"object": fields.constant("list"), "data": fields.list_of(model, 0, 2)})
    return [
        Route("GET", "/v1/models", "models", "The model with your memory, and the model alone.", listed, models),
        Route(
            "POST",
            "/v1/completions",
            "complete",
            "How a text goes on, as OpenAI's completions are asked for, with a memory or without.",
            completion,
            complete,
            asked,
            told={404: "no such model, or memory, of yours"},
        ),
    ]


def _models(service: Service) -> Field:
    """The models that can be named; those of others are not told, and one that is not there is a 404 of its own."""
    words = f"The name of your memory, or {service.name!r} for the model alone."
    any_name = fields.text(NAME, 1)
    if len(service.tenants) > 1:
        return any_name.described(words, examples=[service.name])
    return Field({"enum": [*service.tenants, service.name], "description": words}, any_name.check)


def _memory_asked(service: Service, tenant: Tenant, body: Body) -> Tenant | None:
    """Whose memory is to be read; 404 for another's as for none."""
    model, memory = body["model"], body.get("memory", ...)
    if model not in (tenant.name, service.name):
        raise Refused(
            404, f"there is no model {model!r}; there are {tenant.name!r} and {service.name!r}", "UnknownModel"
        )
    if memory not in (..., None, tenant.name):
        raise Refused(404, f"there is no memory {memory!r}; yours is {tenant.name!r}", "UnknownMemory")
    if memory is ...:
        return tenant if model == tenant.name else None
    return None if memory is None else tenant


def _first(service: Service) -> Any:
    return next(iter(service.tenants.values())).memory


def _label(service: Service) -> Field:
    """A label, as a row is given one."""
    memory = _first(service)
    if memory.task == "classification":
        most = max(one.memory.n_outputs for one in service.tenants.values()) - 1
        known = fields.whole(0, most).described("A class, by its number.")
        if any(one.memory.schema.classes for one in service.tenants.values()):
            return fields.either(known, fields.text(NAME, 1)).described("A class, by its number or its name.")
        return known
    if memory.task == "multi-label":
        return fields.list_of(fields.whole(0, 1), memory.n_outputs, memory.n_outputs)
    flat = memory.flat_labels
    return fields.real() if flat else fields.list_of(fields.real(), memory.n_outputs, memory.n_outputs)


def _said(service: Service) -> Field:
    """A prediction: a class, 0 and 1 of each label, or numbers."""
    memory = _first(service)
    if memory.task == "classification":
        return fields.whole(0, 2**53)
    if memory.task == "multi-label":
        return fields.list_of(fields.whole(0, 1), memory.n_outputs, memory.n_outputs)
    one = fields.nullable(_any_number())
    return one if memory.flat_labels else fields.list_of(one, memory.n_outputs, memory.n_outputs)


def _any_number() -> Field:
    return Field({"type": "number"}, fields.real(-1.8e308, 1.7e308).check)


def _positive() -> Field:
    return Field({"type": "number", "minimum": 0}, fields.real(0, 1.7e308).check)


def _output() -> Field:
    name = fields.nullable(fields.text(2**16))
    return fields.record({"output": fields.whole(0, 2**53), "name": name, "probability": fields.real(0, 1.0001)})


def _score() -> Field:
    name, number = fields.nullable(fields.text(2**16)), fields.nullable(_any_number())
    return fields.record({"output": fields.whole(0, 2**53), "name": name, "base": number, "score": number})


def _neighbour(service: Service) -> Field:
    memory, number = _first(service), fields.nullable(_any_number())
    text = fields.nullable(fields.text(2**16))
    label = {
        "classification": fields.whole(0, 2**53),
        "multi-label": fields.list_of(fields.whole(0, 1), 1, 2**31),
        "regression": number if memory.flat_labels else fields.list_of(number, 1, 2**31),
    }
    return fields.record(
        {
            "id": fields.nullable(fields.whole(-(2**63), 2**63 - 1)),
            "name": text,
            "label": label[memory.task],
            "distance": number,
            "weight": number,
            "contributions": fields.list_of(number, 0, 1000).described("To each of `outputs`, in their order."),
            "text": text,
        }
    )
