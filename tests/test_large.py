"""The steps of a large memory, on one that is small: all that is acknowledged is there, and answers are the same."""

import os

import numpy as np
import pytest

from benchmarks import generated, large

pytest.importorskip("faiss")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*finds too few of the true neighbours")
def test_a_large_memory_from_the_first_row_to_the_server(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "BETWEEN", (0.5, 1.0))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(large.ROOT / "src"), str(large.ROOT)]))
    files = generated.write(tmp_path / "rows", 5000, each=2000)
    assert [len(large.Rows()(number, 3)) for number in range(3)] == [3, 3, 3] and len(files) == 3
    found = large.main(tmp_path / "rows", tmp_path / "mem", "IVF32,PQ32x4fs", ["nprobe=16"], kills=2)
    assert found["build"]["said"]["rows"] == found["search"]["rows"] == 5000
    assert found["search"]["recall"] > 0.8 and found["search"]["accuracy"] > found["search"]["base_accuracy"] + 0.1
    edit = found["edit"]
    assert (edit["kills"], edit["edits_done"] > 2, edit["reader"]["looked_for"] > 2) == (2, True, True)
    assert edit["lost"] == edit["come_back"] == edit["half"] == edit["others_lost"] == 0
    assert edit["reader"]["wrong"] == edit["damaged"] == []
    assert found["serve"]["same"] == "200 of 200" and found["serve"]["learned"] and found["serve"]["forgot"]
    answers = np.load(tmp_path / "mem-answers.npz")
    assert answers["ids"].shape == answers["distances"].shape == (1000, 50)
