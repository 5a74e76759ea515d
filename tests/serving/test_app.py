"""A server as its callers see it."""

import json

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the server: pip install residua[serve]")

import residua as rs
from residua.serving.limits import Limits
from residua.serving.tokens import OPERATOR

ADA, BOB, OPS = "ada's own token, long", "bob's own token, long", "the operator's token"
TOKENS = {"ada": ADA.replace(" ", "-"), "bob": BOB.replace(" ", "-"), OPERATOR: OPS.replace(" ", "-")}


def bearer(name):
    return {"authorization": f"Bearer {TOKENS[name]}"}


def test_predictions_are_the_readers_own(client, folder, rows, given):
    asked, reader, test = client(folder), rs.load(folder), rows(20, 1)
    told = asked.post("/predict", json={"rows": given(test), "top": 3}).json()["predictions"]
    probabilities = reader.predict_proba(test)
    assert [one["prediction"] for one in told] == reader.predict(test).tolist()
    assert [one["base_prediction"] for one in told] == test.logits.argmax().tolist()
    for one, own in zip(told, probabilities, strict=True):
        found = {entry["output"]: entry["probability"] for entry in one["top"]}
        assert np.allclose([found[output] for output in range(3)], own, atol=1e-6)
        assert {entry["name"] for entry in one["top"]} == {"cat", "dog", "fox"}


def test_without_the_memory_the_model_answers_alone(client, folder, rows, given):
    test = rows(20, 1)
    told = client(folder).post("/predict", json={"rows": given(test), "memory": False}).json()["predictions"]
    expected = test.logits.dense().softmax(dim=1).max(dim=1).values
    assert [one["prediction"] for one in told] == [one["base_prediction"] for one in told]
    assert np.allclose([one["top"][0]["probability"] for one in told], expected, atol=1e-6)


def test_what_is_added_is_on_the_disk_and_read_by_the_next_request(client, folder, rows, given):
    asked, row = client(folder), rows(1, 7)
    label = int((row.logits.argmax()[0] + 1) % 3)
    added = asked.post("/add", json={"rows": [{**given(row)[0], "label": label, "name": "mine"}] * 5, "note": "why"})
    assert added.json() == {"ids": [60, 61, 62, 63, 64], "added": 5, "forgotten": 0, "rows": 65}
    there = rs.Memory.load(folder)
    assert len(there) == 65 and there.names[60] == "mine" and there.log()[-1].note == "why"
    assert asked.post("/predict", json={"rows": given(row)}).json()["predictions"][0]["prediction"] == label
    why = asked.post("/explain", json={"row": given(row)[0], "neighbours": 3}).json()
    assert [one["id"] for one in why["neighbours"]] == [60, 61, 62] and why["neighbours"][0]["name"] == "mine"
    assert asked.post("/forget", json={"ids": [60, 61, 62, 63, 64]}).json() == {"forgotten": 5, "rows": 60}
    assert len(rs.Memory.load(folder)) == 60


def test_a_request_sent_again_changes_nothing(client, folder, rows, given):
    asked, about = client(folder), {"rows": given(rows(2, 7), labels=True, first=500)}
    assert asked.post("/add", json=about).status_code == 200
    again = asked.post("/add", json=about)
    assert again.status_code == 409 and again.json()["error"]["type"] == "IdError"
    assert asked.post("/add", json={**about, "replace": True}).json()["rows"] == 62


def test_labels_are_changed_by_number_or_name(client, folder):
    asked = client(folder)
    told = asked.post("/update", json={"rows": [{"id": 3, "label": "fox"}, {"id": 4, "label": 0}]})
    assert told.json() == {"updated": 2, "rows": 60}
    assert rs.Memory.load(folder).labels[[3, 4]].tolist() == [2, 0]


def test_what_others_save_is_read(client, folder, rows, given):
    asked = client(folder)
    other = rs.Memory.open(folder)
    other.forget([0, 1])
    assert asked.get("/memory").json()["rows"] == 58
    other.add(rows(3, 5))
    test = rows(3, 5)[0]
    near = asked.post("/explain", json={"row": given(test)[0], "neighbours": 1}).json()["neighbours"][0]
    assert near["id"] == 60 and near["distance"] == 0


def test_an_explanation_is_the_librarys(client, folder, rows, given):
    test = rows(5, 3)[2]
    told = client(folder).post("/explain", json={"row": given(test)[0], "exclude": [1, 2]}).json()
    why = rs.explain(rs.load(folder), test, exclude=[1, 2])
    assert [one["id"] for one in told["neighbours"]] == why.ids.tolist()
    assert np.allclose([one["weight"] for one in told["neighbours"]], why.weights)
    outputs = [one["output"] for one in told["outputs"]]
    assert np.allclose([one["score"] for one in told["outputs"]], why.scores[outputs])
    assert np.allclose([one["contributions"] for one in told["neighbours"]], why.contributions[:, outputs])


def test_familiarity_is_the_librarys(client, folder, rows, given):
    test = rows(6, 3)
    told = client(folder).post("/familiarity", json={"rows": given(test)}).json()["rows"]
    found = rs.load(folder).familiarity(test)
    assert [one["unfamiliar"] for one in told] == found.unfamiliar.tolist()
    assert [one["unsure"] for one in told] == found.unsure.tolist()


@pytest.mark.parametrize("task", ["regression", "multi-label"])
def test_other_tasks(client, tmp_path, rows, given, task):
    reader = rs.ResMem(rs.Memory(rows(60, task=task)), k=5, sigma=1.0)
    reader.save(tmp_path / "mem")
    asked, test = client(tmp_path / "mem"), rows(7, 2, task)
    told = asked.post("/predict", json={"rows": given(test)}).json()["predictions"]
    assert np.allclose([one["prediction"] for one in told], reader.predict(test), rtol=1e-5)
    added = asked.post("/add", json={"rows": given(test, labels=True)})
    assert added.json()["rows"] == 67
    assert np.allclose(rs.Memory.load(tmp_path / "mem").labels[60:], test.labels, rtol=1e-5)
    assert asked.post("/update", json={"rows": [{"id": 3, "label": test.labels[0].tolist()}]}).json()["updated"] == 1
    assert asked.post("/explain", json={"row": given(test)[0]}).status_code == 200


def test_a_torch_model_reads_what_is_asked(client, tmp_path, network, examples):
    x, y = examples(200)
    reader = rs.ResMem(rs.Memory(rs.encode(network, (x, y))), k=5, sigma=0.5)
    reader.save(tmp_path / "mem")
    asked = client(tmp_path / "mem", model=network, shape=(3,))
    new, labels = examples(30, 1)
    told = asked.post("/predict", json={"rows": [{"input": one} for one in new.tolist()]}).json()["predictions"]
    assert [one["prediction"] for one in told] == reader.predict(rs.encode(network, new, like=reader)).tolist()
    added = [{"input": one, "label": int(label)} for one, label in zip(new.tolist(), labels)]
    assert asked.post("/add", json={"rows": added}).json()["rows"] == 230
    assert rs.Memory.load(tmp_path / "mem").source.difference(reader.memory.source) is None
    wrong = asked.post("/predict", json={"rows": [{"input": [1, 2]}]})
    assert wrong.status_code == 400 and "shape (2,)" in wrong.json()["error"]["message"]


def test_an_input_that_the_model_cannot_read_harms_no_other(client, tmp_path, network, examples):
    rs.ResMem(rs.Memory(rs.encode(network, examples(50))), k=5, sigma=0.5).save(tmp_path / "mem")
    asked = client(tmp_path / "mem", model=network)
    wrong = asked.post("/predict", json={"rows": [{"input": [1, 2]}]})
    assert wrong.status_code == 422 and wrong.json()["error"]["type"] == "EncodeError"
    from residua.serving.answers import Question

    tenant = asked.service.tenants["mem"]
    good, bad = Question(tenant, [{"input": [1, 2, 3]}]), Question(tenant, [{"input": [1, 2]}])
    first, second, third = asked.service.answerer.predictions([good, bad, good])
    assert first == third and isinstance(second, rs.errors.EncodeError)


def test_another_model_is_refused_before_it_is_served(client, tmp_path, network, examples):
    rs.ResMem(rs.Memory(rs.encode(network, examples(50))), k=5, sigma=0.5).save(tmp_path / "mem")
    import torch

    other = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()
    with pytest.raises(rs.errors.SourceMismatchError):
        client(tmp_path / "mem", model=other)


@pytest.fixture
def two(tmp_path, rows):
    for name, seed in (("ada", 0), ("bob", 1)):
        rs.ResMem(rs.Memory(rows(40, seed)), k=5, sigma=1.0).save(tmp_path / name)
    return tmp_path / "ada", tmp_path / "bob"


def test_each_tenant_sees_its_own_memory_alone(client, two, rows, given):
    asked = client(*two, tokens=TOKENS)
    row = given(rows(1, 9), labels=True)
    assert asked.post("/add", json={"rows": row}, headers=bearer("ada")).json()["rows"] == 41
    assert [asked.get("/memory", headers=bearer(name)).json()["rows"] for name in ("ada", "bob")] == [41, 40]
    assert asked.get("/memory", headers=bearer("bob")).json()["name"] == "bob"
    row[0].pop("label")
    near = {
        name: asked.post("/explain", json={"row": row[0], "neighbours": 1}, headers=bearer(name)).json()
        for name in ("ada", "bob")
    }
    assert near["ada"]["neighbours"][0]["distance"] == 0 and near["bob"]["neighbours"][0]["distance"] > 0
    assert asked.post("/forget", json={"ids": [40]}, headers=bearer("bob")).status_code == 404
    assert len(rs.Memory.load(two[0])) == 41


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer"}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKENS['ada']}"}],
)
def test_without_a_token_nothing_is_said(client, two, headers):
    asked = client(*two, tokens=TOKENS)
    for path in ("/memory", "/metrics"):
        refused = asked.get(path, headers=headers)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    assert asked.post("/forget", json={"ids": [0]}, headers=headers).status_code == 401
    assert asked.get("/health").json() == {"status": "ok"}


def test_the_metrics_are_the_operators(client, two):
    asked = client(*two, tokens=TOKENS)
    asked.get("/memory", headers=bearer("ada"))
    assert asked.get("/metrics", headers=bearer("ada")).status_code == 403
    assert asked.get("/memory", headers=bearer(OPERATOR)).status_code == 403
    text = asked.get("/metrics", headers=bearer(OPERATOR)).text
    assert 'residua_requests_total{route="/memory",status="200",tenant="ada"} 1.0' in text
    assert 'residua_memory_rows{tenant="bob"} 40.0' in text


@pytest.mark.parametrize("headers", [{"host": "evil.example:8123"}, {"origin": "http://evil.example"}])
def test_no_page_of_a_browser_may_ask_where_there_is_no_token(client, folder, headers):
    asked = client(folder)
    refused = asked.post("/forget", json={"ids": [0]}, headers=headers)
    assert refused.status_code in (403, 421) and len(rs.Memory.load(folder)) == 60


BAD = {
    "no JSON": b"{",
    "no UTF-8": b'{"rows": "\xff"}',
    "NaN": b'{"rows": [{"key": [NaN, 0, 0, 0], "logits": [0, 0, 0]}]}',
    "infinite": b'{"rows": [{"key": [1e999, 0, 0, 0], "logits": [0, 0, 0]}]}',
    "a number that is no float32": b'{"rows": [{"key": [1e39, 0, 0, 0], "logits": [0, 0, 0]}]}',
    "a long number": b'{"rows": [{"key": [' + b"9" * 400 + b', 0, 0, 0], "logits": [0, 0, 0]}]}',
    "true for 1": b'{"rows": [{"key": [true, 0, 0, 0], "logits": [0, 0, 0]}]}',
    "text for a number": b'{"rows": [{"key": ["1", 0, 0, 0], "logits": [0, 0, 0]}]}',
    "ragged": b'{"rows": [{"key": [[1], 0, 0, 0], "logits": [0, 0, 0]}]}',
    "too short": b'{"rows": [{"key": [0, 0, 0], "logits": [0, 0, 0]}]}',
    "nothing": b'{"rows": []}',
    "a list": b"[]",
    "an unknown field": b'{"rows": [{"key": [0, 0, 0, 0], "logits": [0, 0, 0], "path": "/etc/passwd"}]}',
    "twice": b'{"rows": [], "rows": [{"key": [0, 0, 0, 0], "logits": [0, 0, 0]}]}',
    "deep": b'{"rows": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deeper": b'{"rows": ' + b"[" * 200_000,
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_refused(client, folder, body):
    refused = client(folder).post("/predict", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 400 and refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/forget", {"ids": [0, 999]}, 404, "IdError"),
        ("/update", {"rows": [{"id": 999, "label": 0}]}, 404, "IdError"),
        ("/update", {"rows": [{"id": 1, "label": 0}, {"id": 1, "label": 1}]}, 404, "IdError"),
        ("/update", {"rows": [{"id": 1, "label": "wolf"}]}, 422, "LabelError"),
        ("/update", {"rows": [{"id": 1, "label": 3}]}, 400, "RequestError"),
        ("/update", {"rows": [{"id": 2**60, "label": 1}]}, 400, "RequestError"),
        ("/update", {"rows": [{"id": 1, "label": "\udc00"}]}, 400, "RequestError"),
    ],
)
def test_what_does_not_fit_changes_nothing(client, folder, path, body, status, kind):
    refused = client(folder).post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (status, kind)
    assert len(rs.Memory.load(folder).log()) == 1


def test_of_many_rows_all_are_added_or_none(client, folder, rows, given):
    asked, about = client(folder), given(rows(3, 2), labels=True)
    about[1]["label"] = "wolf"
    assert asked.post("/add", json={"rows": about}).status_code == 422
    about[1]["label"], about[1]["id"] = 0, 5
    assert asked.post("/add", json={"rows": about}).status_code == 409
    assert asked.get("/memory").json()["rows"] == 60 and len(rs.Memory.load(folder).log()) == 1


def test_an_empty_memory_is_the_model_alone(client, folder, rows, given):
    asked = client(folder)
    assert asked.post("/forget", json={"ids": list(range(60))}).json()["rows"] == 0
    told = asked.post("/predict", json={"rows": given(rows(4, 1))})
    assert told.status_code == 200
    empty = asked.post("/familiarity", json={"rows": given(rows(1, 1))})
    assert (empty.status_code, empty.json()["error"]["type"]) == (409, "EmptyMemoryError")
    assert asked.post("/add", json={"rows": given(rows(1, 1), labels=True)}).json()["rows"] == 1


def test_limits_of_size(client, folder, rows, given):
    asked = client(folder, limits=Limits(body=2000, rows=4, capacity=62))
    assert asked.post("/predict", json={"rows": given(rows(5, 1))}).status_code == 400
    large = asked.post("/predict", content=b" " * 2001, headers={"content-type": "application/json"})
    assert (large.status_code, large.json()["error"]["type"]) == (413, "TooLarge")

    def endless():
        for _ in range(100):
            yield b" " * 100

    assert asked.post("/predict", content=endless(), headers={"content-type": "application/json"}).status_code == 413
    full = asked.post("/add", json={"rows": given(rows(3, 1), labels=True)})
    assert (full.status_code, full.json()["error"]["type"]) == (409, "StorageError")
    assert len(rs.Memory.load(folder)) == 60
    assert asked.post("/add", json={"rows": given(rows(2, 1), labels=True)}).status_code == 200


def test_a_rate_is_each_tenants_own(client, two):
    asked = client(*two, tokens=TOKENS, limits=Limits(rate=1))
    first, second = (asked.get("/memory", headers=bearer("ada")) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429) and int(second.headers["retry-after"]) >= 1
    assert asked.get("/memory", headers=bearer("bob")).status_code == 200


def test_what_is_no_json_is_not_read(client, folder):
    asked = client(folder)
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert asked.post("/forget", content=b'{"ids": [0]}', headers={"content-type": kind}).status_code == 415
    assert asked.get("/nothing").status_code == 404 and "error" in asked.get("/nothing").json()
    refused = asked.get("/predict")
    assert refused.status_code == 405 and refused.headers["allow"] == "POST" and "error" in refused.json()


def test_the_log_says_what_was_asked_and_nothing_that_was_sent(client, folder, rows, given, log):
    asked, row = client(folder), given(rows(1, 3), labels=True)[0]
    asked.post("/add", json={"rows": [{**row, "name": "a secret name"}], "note": "a secret note"})
    asked.post("/update", json={"rows": [{"id": 1, "label": "a secret label"}]})
    asked.get("/a-secret-path?a=secret")
    events = log("request")
    assert [(one["route"], one["status"], one["tenant"]) for one in events] == [
        ("/add", 200, "mem"),
        ("/update", 422, "mem"),
        ("other", 404, ""),
    ]
    assert events[1]["error"] == "LabelError" and events[0]["ms"] > 0 and "secret" not in log.stream.getvalue()


def test_a_failure_inside_is_told_without_its_words(client, folder, rows, given, log, monkeypatch):
    asked = client(folder)
    asked.service.editor.relabel = lambda *_: 1 / 0
    failed = asked.post("/update", json={"rows": [{"id": 1, "label": 0}]})
    assert failed.status_code == 500 and failed.json()["error"]["message"] == "the server failed; its log says where"
    (failure,) = log("failure")
    assert failure["error"] == "ZeroDivisionError" and "test_app.py" in failure["where"][-1]


def test_the_page_and_the_document(client, folder):
    asked = client(folder)
    document = asked.get("/openapi.json").json()
    assert {"/predict", "/explain", "/familiarity", "/add", "/update", "/forget", "/health", "/memory"} == set(
        document["paths"]
    )
    page = asked.get("/")
    assert "sha256-" in page.headers["content-security-policy"] and "<script" not in page.text
    for path, about in document["paths"].items():
        for operation in about.values():
            assert path in page.text and operation["summary"].split(",")[0][:30] in page.text
