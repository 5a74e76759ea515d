import json

import numpy as np

import residua as rs


def test_every_verb_in_turn(run):
    for part in ("train", "val", "test"):
        run("encode", "net:model", f"net:{part}", "-o", f"{part}.npz")
    run("build", "train.npz", "-o", "mem/")
    run("tune", "mem/", "val.npz", "--reader", "resmem", "--objective", "accuracy")
    before = json.loads(run("evaluate", "mem/", "test.npz", "--validation", "val.npz", "--json").stdout)
    assert before["accuracy"] > before["base_accuracy"]  # an untrained network
    assert "prediction" in run("explain", "mem/", "test.npz", "--row", 7).stdout
    run("add", "mem/", "val.npz")
    run("forget", "mem/", *(word for i in range(60, 90) for word in ("--id", i)))
    assert json.loads(run("evaluate", "mem/", "test.npz", "--validation", "val.npz", "--json").stdout) == before
    label = int(rs.Memory.load("mem").labels[3])
    run("relabel", "mem/", "--id", 3, "--label", (label + 1) % 3)
    assert rs.Memory.load("mem").labels[3] == (label + 1) % 3
    run("relabel", "mem/", "--id", 3, "--label", label)
    assert json.loads(run("info", "mem/", "--json").stdout)["forgotten"] == 30
    after = rs.load("mem").scores(rs.Encoded.load("test.npz"))
    fresh = rs.ResMem(rs.Memory(rs.Encoded.load("train.npz")), **{**rs.load("mem").params}).scores(
        rs.Encoded.load("test.npz")
    )
    np.testing.assert_allclose(after, fresh, atol=1e-6)
