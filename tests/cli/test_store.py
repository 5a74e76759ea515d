import pytest

import residua as rs
from residua.cli.store import reader_at
from residua.errors import MemoryFileError, ParameterError


def test_the_saved_reader_is_the_default(mem):
    rs.KNNLM(rs.Memory.load(mem), k=4, lmbda=0.5).save(mem)
    reader = reader_at(mem, None, "cpu", {"k": None}, of_text=False)
    assert isinstance(reader, rs.KNNLM) and (reader.k, reader.lmbda) == (4, 0.5)


def test_a_named_reader_takes_its_parameters(mem):
    rs.KNNLM(rs.Memory.load(mem), k=4).save(mem)
    reader = reader_at(mem, "resmem", "cpu", {"k": 3, "sigma": 0.5, "space": None}, of_text=False)
    assert isinstance(reader, rs.ResMem) and (reader.k, reader.sigma) == (3, 0.5)


def test_what_is_missing_is_said(mem, tmp_path):
    with pytest.raises(MemoryFileError, match=r"no tuned reader; run 'residua tune .*mem VALIDATION.npz' first"):
        reader_at(mem, None, "cpu", {}, of_text=False)
    with pytest.raises(MemoryFileError, match=r"nowhere"):
        reader_at(tmp_path / "nowhere", None, "cpu", {}, of_text=False)
    with pytest.raises(ParameterError, match="--k, --sigma given without a reader"):
        reader_at(mem, None, "cpu", {"k": 3, "sigma": 0.5}, of_text=False)
    with pytest.raises(ParameterError, match="--reader resmem has no --lmbda"):
        reader_at(mem, "resmem", "cpu", {"lmbda": 0.5}, of_text=False)
