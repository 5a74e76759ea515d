import json

import pandas

import residua as rs


def test_audit_is_the_verb_of_the_library(run, mem, encoded, here):
    expected = rs.audit(rs.Memory(encoded["train"]), encoded["val"])
    done = run("audit", "mem", "val.npz", "--csv", "queue.csv")
    assert done.stdout == f"{expected}\n"
    assert f"residua relabel mem --id {expected.ids[expected.order[0]]}" in done.stderr
    assert json.loads(run("audit", "mem", "val.npz", "--json").stdout) == json.loads(json.dumps(expected.to_dict()))
    queue, frame = pandas.read_csv(here / "queue.csv", index_col="row"), expected.to_frame()
    assert queue.index.tolist() == frame.index.tolist() and list(queue) == list(frame)


def test_a_reader_that_is_named_is_audited(run, mem, encoded):
    data = json.loads(run("audit", "mem", "--reader", "resmem", "--k", 3, "--sigma", 1, "--json").stdout)
    expected = rs.audit(rs.ResMem(rs.Memory(encoded["train"]), k=3, sigma=1.0))
    assert data == json.loads(json.dumps(expected.to_dict()))
    assert "without a reader" in run("audit", "mem", "--k", 3, code=1).stderr
