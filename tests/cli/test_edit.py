import json

import numpy as np
import pytest

import residua as rs


def test_add(run, mem):
    assert run("add", "mem", "val.npz").stdout == "mem: 30 rows added, ids 60 to 89; 90 now\n"
    data = json.loads(run("add", "mem", "test.npz", "--json").stdout)
    assert data == {"added": 30, "ids": list(range(90, 120)), "rows": 120}
    assert rs.Memory.load(mem).ids.tolist() == list(range(120))


def test_add_refuses_known_ids_unless_replaced(run, mem):
    rs.Encoded(np.full((1, 2), 9.0), np.zeros((1, 3)), [2], [7]).save("seven.npz")
    assert "(on the command line: --replace)" in run("add", "mem", "seven.npz", code=1).stderr
    assert len(rs.Memory.load(mem)) == 60
    run("add", "mem", "seven.npz", "--replace")
    memory = rs.Memory.load(mem)
    assert len(memory) == 60
    assert memory.keys[memory.ids == 7].tolist() == [[9.0, 9.0]]


def test_add_takes_new_classes_when_told(run, mem):
    rs.Encoded(np.full((1, 2), 9.0), np.zeros((1, 3)), [3], new_classes=True).save("new.npz")
    assert "new_classes=True" in run("add", "mem", "new.npz", code=1).stderr
    run("add", "mem", "new.npz", "--new-classes")
    assert rs.Memory.load(mem).n_outputs == 4


def test_forget(run, mem):
    (mem.parent / "ids.txt").write_text("5\n\n 6 \n")
    assert run("forget", "mem", "--id", 3, "--ids-file", "ids.txt").stdout == "mem: 3 rows forgotten; 57 left\n"
    assert not set(rs.Memory.load(mem).ids.tolist()) & {3, 5, 6}
    assert "not in the memory, such as [3]" in run("forget", "mem", "--id", 4, "--id", 3, code=1).stderr
    assert 4 in rs.Memory.load(mem)  # all or none


def test_forget_for_good(run, mem):
    memory = rs.Memory.load(mem)  # keys are kept as differences from a centre
    gone = (memory.keys[3] - memory.schema.key_centre.numpy()).astype(np.float32).tobytes()
    assert any(gone in file.read_bytes() for file in mem.iterdir())
    run("forget", "mem", "--id", 3, "--json")
    assert any(gone in file.read_bytes() for file in mem.iterdir())
    said = json.loads(run("forget", "mem", "--id", 4, "--rebuild", "--json").stdout)
    assert said == {"forgotten": 1, "kept": {}, "rows": 58}
    assert not any(gone in file.read_bytes() for file in mem.iterdir())


def test_purge(run, mem):
    said = run("forget", "mem", "--id", 3)
    assert "residua purge mem  # remove them from the files, too" in said.stderr
    done = run("purge", "mem")
    assert done.stdout.startswith("mem: 1 row removed; ")
    assert done.stdout.endswith(" bytes: none is left\n")
    assert json.loads(run("purge", "mem", "--json").stdout)["rows"] == 0
    assert rs.Memory.load(mem).n_rows == 59


def test_relabel(run, mem):
    before = rs.Memory.load(mem).labels
    assert run("relabel", "mem", "--id", 4, "--id", 3, "--label", 2, "--label", 1).stdout.startswith("mem: 2 rows")
    after = rs.Memory.load(mem).labels
    assert after[[3, 4]].tolist() == [1, 2]
    np.testing.assert_array_equal(np.delete(after, [3, 4]), np.delete(before, [3, 4]))
    run("relabel", "mem", "--id", 3, "--id", 4, "--label", 0)
    assert rs.Memory.load(mem).labels[[3, 4]].tolist() == [0, 0]


def test_relabel_targets(run, here):
    rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), np.zeros((3, 2)))).save("flat")
    run("relabel", "flat", "--id", 0, "--id", 2, "--label", "0.5,1", "--label", "-2,3")
    assert rs.Memory.load("flat").labels.tolist() == [[0.5, 1], [0, 0], [-2, 3]]
    assert (
        "expected as many in each" in run("relabel", "flat", "--id", 0, "--label", "1,2", "--label", 3, code=1).stderr
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["relabel", "mem", "--id", 3, "--label", 7], "classes 0 ... 2"),
        (["relabel", "mem", "--id", 3, "--label", 0.5], "expected class indices"),
        (["relabel", "mem", "--id", 3, "--label", 0, "--label", 1], "expected one each"),
        (["relabel", "mem", "--label", 0], "no ids were given"),
        (["forget", "mem"], "no ids were given"),
        (["forget", "mem", "--ids-file", "none.txt"], "cannot read ids from none.txt"),
        (["forget", "mem", "--ids-file", "net.py"], "net.py, line 2: 'import torch' is not an integer id"),
    ],
)
def test_bad_edits_change_nothing(run, mem, words, message):
    before = {file.name: file.read_bytes() for file in mem.iterdir()}
    assert message in run(*words, code=1).stderr
    assert {file.name: file.read_bytes() for file in mem.iterdir()} == before
