import json

import numpy as np

import residua as rs


def test_explain_is_the_verb_of_the_library(run, mem, encoded):
    rs.ResMem(rs.Memory.load(mem), k=4, sigma=0.8).save(mem)
    why = rs.explain(rs.load(mem), encoded["test"][7])
    assert run("explain", "mem", "test.npz", "--row", 7).stdout == f"{why}\n"
    data = json.loads(run("explain", "mem", "test.npz", "--row", 7, "--json").stdout)
    assert (data["ids"], data["prediction"], data["label"]) == (why.ids.tolist(), why.prediction, why.label)
    total = data["scale"] * np.array(data["base"]) + np.array(data["contributions"]).sum(axis=0)
    np.testing.assert_allclose(total, data["scores"], atol=1e-6)


def test_a_row_need_not_be_its_own_neighbour(run, mem):
    words = ["explain", "mem", "train.npz", "--row", 7, "--reader", "resmem", "--k", 3, "--json"]
    assert json.loads(run(*words).stdout)["ids"][0] == 7
    assert 7 not in json.loads(run(*words, "--exclude-id", 7).stdout)["ids"]


def test_a_row_that_is_not_there(run, mem):
    stderr = run("explain", "mem", "test.npz", "--row", 30, "--reader", "resmem", "--k", 3, code=1).stderr
    assert "--row 30, and test.npz holds 30 rows; expected 0 to 29" in stderr
    run("explain", "mem", "test.npz", "--row", -1, code=2)
