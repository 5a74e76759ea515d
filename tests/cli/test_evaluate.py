import json

import numpy as np

import residua as rs


def test_evaluate_is_the_verb_of_the_library(run, mem, encoded):
    rs.ResMem(rs.Memory.load(mem), k=5, sigma=0.8, temperature=1.5).save(mem)
    expected = rs.evaluate(rs.load(mem), encoded["test"], validation=encoded["val"], n_bootstrap=100, seed=3)
    words = ["evaluate", "mem", "test.npz", "--validation", "val.npz", "--n-bootstrap", 100, "--seed", 3]
    assert json.loads(run(*words, "--json").stdout) == json.loads(json.dumps(expected.to_dict()))
    assert run(*words).stdout == f"{expected}\n"


def test_a_reader_of_ones_own(run, mem, encoded):
    words = ["evaluate", "mem", "test.npz", "--reader", "knnlm", "--k", 3, "--lmbda", 1, "--sigma", 2, "--json"]
    data = json.loads(run(*words, "--confidence", 0.9).stdout)
    expected = rs.KNNLM(rs.Memory(encoded["train"]), k=3, lmbda=1, sigma=2)
    assert data["params"] == expected.params and data["confidence"] == 0.9
    assert data["accuracy"] == np.mean(expected.predict(encoded["test"]) == encoded["test"].labels)


def test_several_files_are_one_test_set(run, mem):
    data = json.loads(run("evaluate", "mem", "test.npz", "val.npz", "--reader", "resmem", "--k", 3, "--json").stdout)
    assert data["n"] == 60


def test_no_reader(run, mem):
    assert "run 'residua tune mem VALIDATION.npz' first" in run("evaluate", "mem", "test.npz", code=1).stderr
    assert "without a reader" in run("evaluate", "mem", "test.npz", "--k", 3, code=1).stderr


def test_another_models_rows_are_refused(run, here):
    run("encode", "net:both", "-o", "a.npz")
    run("build", "a.npz", "-o", "memory")
    run("encode", "net:both", "-o", "b.npz", "--key", "0")
    stderr = run("evaluate", "memory", "b.npz", "--reader", "resmem", "--k", 3, code=1).stderr
    assert "'2:input' here and from '0' there" in stderr


def test_keys_are_left_in_their_files(run, mem):
    rs.ResMem(rs.Memory.load(mem), k=5, sigma=0.8).save(mem)
    words = ["evaluate", "mem", "test.npz", "--n-bootstrap", 10, "--json"]
    expected = run(*words).stdout
    assert run(*words, "--mmap").stdout == expected
    (shard,) = mem.glob("rows-*")
    content = bytearray(shard.read_bytes())
    length = int.from_bytes(content[:8], "little")
    content[8 + length + json.loads(content[8 : 8 + length])["key"]["data_offsets"][0]] ^= 1
    shard.write_bytes(content)  # what is left unread is not verified
    assert "corrupted" in run(*words, code=1).stderr
    assert json.loads(run(*words, "--mmap").stdout)["n"] == json.loads(expected)["n"]
    asked = ["evaluate", "mem", "test.npz", "--reader", "resmem", "--k", 3, "--mmap", "--json"]
    assert json.loads(run(*asked).stdout)["params"]["k"] == 3
