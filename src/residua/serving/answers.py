"""What a memory says of rows, in JSON types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, as_tensor
from residua.explanation import explain
from residua.explanation.explanation import Decoder
from residua.memory import Memory
from residua.printable import plain
from residua.serving.rows import Rows
from residua.serving.tenants import Tenant


@dataclass(frozen=True)
class Question:
    """Rows of one request, whose memory is asked, and how."""

    tenant: Tenant
    rows: Sequence[Mapping[str, Any]]
    with_memory: bool = True
    top: int = 5


class Answerer:
    """Answers many questions by one pass of the model, and one search of each memory that is asked."""

    rows: Rows
    tokenizer: Decoder | None

    def __init__(self, rows: Rows, tokenizer: Decoder | None = None):
        self.rows, self.tokenizer = rows, tokenizer

    def predictions(self, questions: Sequence[Question]) -> list[list[dict[str, Any]] | Exception]:
        """For each question a prediction of each of its rows, or why there is none."""
        try:
            return list(self._together(questions))
        except Exception as error:  # noqa: BLE001 (whose fault it was is found by asking each alone)
            if len(questions) == 1:
                return [error]
            return [self.predictions([one])[0] for one in questions]

    def explanation(self, tenant: Tenant, row: Mapping[str, Any], neighbours: int, exclude: Sequence[int]) -> Any:
        """Which remembered rows moved the prediction of one row, the `neighbours` that weigh most."""
        query = self.rows.encoded([row])
        tenant.refresh()
        why = explain(tenant.reader, query, exclude=exclude or None, tokenizer=self.tokenizer)
        names = why.classes
        shown = np.sort(np.argsort(-why.weights, kind="stable")[:neighbours])
        best = np.argsort(-why.scores, kind="stable")[:neighbours] if why.task == "classification" else ...
        places = np.arange(len(why.outputs))[best]
        found = []
        for at in shown.tolist():
            look, own = why.look(at, {}), why.sources[at] == "memory"
            found.append(
                {
                    "id": int(why.ids[at]) if own else None,
                    "name": look.name if own and int(why.ids[at]) in why.names else None,
                    "label": why.labels[at],
                    "distance": why.distances[at],
                    "weight": why.weights[at],
                    "contributions": why.contributions[at, places],
                    "text": None if look.text is None else "".join(look.text),
                }
            )
        said = {"prediction": why.prediction, "base_prediction": why.base_prediction, "space": why.space}
        said |= {"scale": why.scale, "neighbours": found, "all_neighbours": len(why)}
        said["outputs"] = [
            {
                "output": int(why.outputs[at]),
                "name": self._called(names, int(why.outputs[at]), tenant.memory),
                "base": why.base[at],
                "score": why.scores[at],
            }
            for at in places.tolist()
        ]
        return plain(said)

    def familiarity(self, tenant: Tenant, rows: Sequence[Mapping[str, Any]]) -> Any:
        """How unfamiliar each row is to the memory, and how unsure its answer."""
        query = self.rows.encoded(rows)
        tenant.refresh()
        found = tenant.reader.familiarity(query)
        unsure = [None] * len(found) if found.unsure is None else found.unsure.tolist()
        table = zip(found.unfamiliar.tolist(), unsure, found.distance.tolist(), strict=True)
        return plain([dict(zip(("unfamiliar", "unsure", "distance"), one, strict=True)) for one in table])

    def _together(self, questions: Sequence[Question]) -> list[list[dict[str, Any]]]:
        encoded = self.rows.encoded([row for one in questions for row in one.rows])
        ends = np.cumsum([len(one.rows) for one in questions]).tolist()
        found: list[list[dict[str, Any]]] = [[] for _ in questions]
        groups: dict[tuple[int, bool], list[int]] = {}
        for place, one in enumerate(questions):
            groups.setdefault((id(one.tenant), one.with_memory), []).append(place)
        for places in groups.values():
            first = questions[places[0]]
            spans = [range(ends[place] - len(questions[place].rows), ends[place]) for place in places]
            whole = len(places) == len(questions)
            rows = encoded if whole else encoded[np.concatenate([np.array(span) for span in spans])]
            top = max(questions[place].top for place in places)
            said = self._answered(first.tenant, rows, first.with_memory, top)
            for place in places:
                question = questions[place]
                own, said = said[: len(question.rows)], said[len(question.rows) :]
                found[place] = [{**one, "top": one["top"][: question.top]} for one in own]
        return found

    def _answered(self, tenant: Tenant, rows: Encoded, with_memory: bool, top: int) -> list[dict[str, Any]]:
        memory = tenant.memory
        base = memory.schema.widened(rows).logits.dense()
        if with_memory:
            tenant.refresh()
            tables, best = [], []
            for _, now in tenant.reader.predictions(rows, exclude=None):
                tables.append(now.scores if memory.task == "regression" else now.probabilities)
                best.append(tables[-1] if memory.task == "regression" else now.argmax())
            table, said = torch.cat(tables).cpu(), torch.cat(best).cpu()
        else:
            table = _alone(memory, base)
            said = _decided(memory, table)
        alone = _decided(memory, base if memory.task != "multi-label" else _alone(memory, base))
        if memory.task == "regression" and memory.flat_labels:
            said, alone = said[:, 0], alone[:, 0]
        listed = self._listed(memory, table, top)
        pairs = zip(said.tolist(), alone.tolist(), listed, strict=True)
        return [{"prediction": now, "base_prediction": before, "top": some} for now, before, some in pairs]

    def _listed(self, memory: Memory, table: Tensor, top: int) -> list[list[dict[str, Any]]]:
        """The likeliest outputs of each row, with their probabilities; none of a regression."""
        if memory.task == "regression":
            return [[] for _ in range(len(table))]
        values, outputs = table.topk(min(top, table.shape[1]), dim=1)
        classes = memory.schema.classes
        return [
            [
                {"output": output, "name": self._called(classes, output, memory), "probability": value}
                for output, value in zip(row, likely, strict=True)
            ]
            for row, likely in zip(outputs.tolist(), values.tolist(), strict=True)
        ]

    def _called(self, classes: Sequence[str] | None, output: int, memory: Memory) -> str | None:
        if memory.schema.is_text and self.tokenizer is not None:
            return self.tokenizer.decode([output])
        return None if classes is None else classes[output]


def _alone(memory: Memory, logits: Tensor) -> Tensor:
    """What the model says without a memory: probabilities, or a regression's predictions."""
    if memory.task == "regression":
        return logits
    return torch.sigmoid(logits) if memory.task == "multi-label" else torch.softmax(as_tensor(logits).float(), dim=1)


def _decided(memory: Memory, table: Tensor) -> Tensor:
    if memory.task == "classification":
        return table.argmax(dim=1)
    return (table > 0.5).long() if memory.task == "multi-label" else table
