import json

import numpy as np
import pytest

import residua as rs


def test_encode_is_the_verb_of_the_library(run, here):
    done = run("encode", "net:model", "net:train", "-o", "out.npz")
    assert done.stdout == "out.npz: Encoded(60 rows, keys of 4, 3 outputs, classification), key 2:input\n"
    import net

    expected = rs.encode(net.model(), net.train(), progress=False)
    found = rs.Encoded.load("out.npz")
    np.testing.assert_array_equal(found.keys, expected.keys)
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.source == expected.source


def test_what_the_outputs_are_is_said_and_may_be_given(run, here):
    text = (here / "net.py").read_text()
    spoken = "    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Softmax(1))\n"
    (here / "net.py").write_text(f"{text}\n\ndef soft():\n    torch.manual_seed(0)\n{spoken}")
    run("encode", "net:soft", "net:train", "-o", "a.npz")
    run("encode", "net:soft", "net:train", "-o", "b.npz", "--kind", "logits")
    kinds = [rs.Encoded.load(name).source.output for name in ("a.npz", "b.npz")]
    assert kinds == ["probabilities", "logits"]
    run("build", "a.npz", "-o", "mem")
    assert "outputs probabilities" in run("info", "mem").stdout
    assert "no item 4" in run("encode", "net:model", "net:train", "-o", "c.npz", "--kind", "4", code=1).output


def test_a_pair_brings_its_own_data(run):
    run("encode", "net:both", "-o", "out.npz")
    assert len(rs.Encoded.load("out.npz")) == 60


def test_arrays_labels_ids_and_key(run):
    np.savez("data.npz", x=np.eye(2), y=np.array([2, 0]), ids=np.array([8, 9]))
    done = run("encode", "net:model", "data.npz", "-o", "out.npz", "--key", "0", "--batch-size", 1, "--json")
    assert json.loads(done.stdout) == {
        "rows": 2,
        "dim": 4,
        "outputs": 3,
        "task": "classification",
        "labels": True,
        "key": "0",
        "kind": "logits",
        "output": "out.npz",
    }
    found = rs.Encoded.load("out.npz")
    assert found.labels.tolist() == [2, 0] and found.ids.tolist() == [8, 9]


def test_queries_need_no_labels(run):
    np.savez("data.npz", x=np.eye(2))
    assert "no labels" in run("encode", "net:model", "data.npz", "-o", "out.npz").stdout


def test_estimators_and_like(run, here):
    pytest.importorskip("sklearn")
    (here / "net.py").write_text(
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n"
        "def data(seed=0):\n    rng = np.random.default_rng(seed)\n    X = rng.normal(size=(40, 3))\n"
        "    return X, (X[:, 0] + rng.normal(size=40) > 0).astype(int)\n"
        "def other():\n    return data(1)\n"
        "def model():\n    return LogisticRegression().fit(*data())\n"
    )
    run("encode", "net:model", "net:data", "-o", "train.npz", "--cv", 4)
    run("encode", "net:model", "net:other", "-o", "test.npz", "--like", "train.npz")
    train, test = rs.Encoded.load("train.npz"), rs.Encoded.load("test.npz")
    assert train.source.difference(test.source) is None
    run("encode", "net:model", "net:other", "-o", "alone.npz")
    run("build", "train.npz", "-o", "mem")
    run("encode", "net:model", "net:other", "-o", "again.npz", "--like", "mem")
    np.testing.assert_array_equal(rs.Encoded.load("again.npz").keys, test.keys)
    stderr = run("evaluate", "mem", "alone.npz", "--reader", "resmem", "--k", 3, code=1).stderr
    assert "different statistics" in stderr and "'residua encode' with --like" in stderr


def test_what_cannot_be_encoded(run, mem):
    assert "residua encode net:model DATA" in run("encode", "net:model", "-o", "out.npz", code=1).stderr
    assert "mem is a memory" in run("encode", "net:both", "-o", "mem", code=1).stderr
    stderr = run("encode", "net:both", "-o", "out.npz", "--key", "nonesuch", code=1).stderr
    assert "nonesuch" in stderr
    assert "cannot write" in run("encode", "net:both", "-o", "no/folder/out.npz", code=1).stderr
