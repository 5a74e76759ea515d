"""What the page says comes back is what comes back."""

import pytest

pytest.importorskip("prometheus_client", reason="the server: pip install residua[serve]")

from residua.serving.openapi import document
from residua.serving.page import page
from residua.serving.routes import routes_of

STATUSES = {"200", "400", "403", "408", "409", "413", "415", "421", "422", "429", "500", "503"}


@pytest.mark.parametrize("task", ["classification", "regression", "multi-label"])
def test_answers_are_as_the_table_says(client, tmp_path, rows, given, task):
    import residua as rs

    rs.ResMem(rs.Memory(rows(60, task=task)), k=5, sigma=1.0).save(tmp_path / "mem")
    asked = client(tmp_path / "mem")
    test = rows(3, 1, task)
    label = test.labels[0].tolist()
    sent = {
        "/predict": {"rows": given(test)},
        "/explain": {"row": given(test)[0]},
        "/familiarity": {"rows": given(test)},
        "/memory": None,
        "/add": {"rows": given(test, labels=True)},
        "/update": {"rows": [{"id": 1, "label": label}]},
        "/forget": {"ids": [1]},
    }
    table = routes_of(asked.service)
    assert {route.path for route in table} == set(sent)
    for route in table:
        if route.body is not None:
            route.body.check(sent[route.path], route.path)
        answer = asked.request(route.method, route.path, json=sent[route.path])
        assert answer.status_code == 200, answer.text
        route.answer.check(answer.json(), route.path)


def test_every_status_and_the_token_are_said(client, folder):
    table = routes_of(client(folder).service)
    found = document(table, tokens=True)
    about = found["paths"]["/add"]["post"]
    assert set(about["responses"]) == STATUSES | {"401"} and about["security"] == [{"token": []}]
    assert found["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert "security" not in document(table, tokens=False)["paths"]["/add"]["post"]
    assert "404" in found["paths"]["/forget"]["post"]["responses"]
    assert "Authorization: Bearer" in page(found)


def test_what_stands_on_the_page_is_text(client, folder):
    found = document(routes_of(client(folder).service), tokens=False)
    found["paths"]["/add"]["post"]["summary"] = "<script>alert(1)</script>"
    assert "<script" not in page(found)
