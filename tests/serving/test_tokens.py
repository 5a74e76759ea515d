import json
import os
import stat

import pytest

from residua.errors import InputError
from residua.serving.tokens import OPERATOR, Tokens

pytest.importorskip("starlette", reason="the server: pip install residua[serve]")


def test_they_are_made_once_for_their_owner_alone(tmp_path):
    file = tmp_path / "tokens.json"
    first = Tokens.in_file(file, ["ada"])
    made = json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and set(made) == {"ada", OPERATOR}
    assert {first.whose(token): name for name, token in made.items()} == {"ada": "ada", OPERATOR: OPERATOR}
    again = Tokens.in_file(file, ["ada", "bob"])
    more = json.loads(file.read_text())
    assert again.whose(made["ada"]) == "ada" and again.whose(more["bob"]) == "bob" and first.whose(more["bob"]) is None
    assert os.listdir(tmp_path) == ["tokens.json"]


def test_a_tenant_that_is_served_no_longer_has_none(tmp_path):
    file = tmp_path / "tokens.json"
    Tokens.in_file(file, ["ada", "bob"])
    bob = json.loads(file.read_text())["bob"]
    assert Tokens.in_file(file, ["ada"]).whose(bob) is None


@pytest.mark.parametrize("token", ["", "é", "\ud800", "x" * 100_000])
def test_anything_may_be_given(tmp_path, token):
    assert Tokens.in_file(tmp_path / "tokens.json", ["ada"]).whose(token) is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"ada": 3}', '{"ada": "short"}', '{"ada": "with a space in it"}', '{"ada": "' + "é" * 20 + '"}']
)
def test_a_file_that_holds_none_is_refused(tmp_path, text):
    file = tmp_path / "tokens.json"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InputError, match=r"tokens\.json"):
        Tokens.in_file(file, ["ada"])


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_file_that_others_read_is_refused(tmp_path):
    file = tmp_path / "tokens.json"
    Tokens.in_file(file, ["ada"])
    file.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        Tokens.in_file(file, ["ada"])


def test_one_token_for_two_is_refused(tmp_path):
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"ada": "x" * 20, "bob": "x" * 20}))
    file.chmod(0o600)
    with pytest.raises(InputError, match="same token"):
        Tokens.in_file(file, ["ada", "bob"])


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        Tokens.in_file(tmp_path / "nothing" / "tokens.json", ["ada"])
