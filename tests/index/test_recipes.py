import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.errors import ParameterError
from residua.index import make_index
from residua.index.recipes import FEW, RECIPES, Recipe, knnlm, knnlm_fast


def test_the_papers_own_at_its_own_size(caplog):
    with caplog.at_level(logging.INFO, "residua"):
        assert knnlm(103_000_000, 1024) == Recipe("IVF4096,PQ64", {"nprobe": 32, "rerank": 1024, "train_on": 1_000_000})
    assert caplog.text == ""


def test_smaller_memories_get_less_and_the_log_says_so(caplog):
    with caplog.at_level(logging.INFO, "residua"):
        assert knnlm(100_000, 96) == Recipe("IVF1024,PQ48", {"nprobe": 32, "rerank": 1024, "train_on": 65_536})
    assert "1024 lists, 48 bytes a key and 65536 keys to learn from, where the paper has 4096, 64" in caplog.text
    assert knnlm(1_000_000, 256).params["train_on"] == 4096 * 64
    with caplog.at_level(logging.INFO, "residua"):
        assert knnlm(FEW - 1, 256).name == knnlm_fast(5, 256).name == "exact"
    assert "index 'knnlm' over 9999 keys is exact" in caplog.text


def test_the_fast_one():
    assert knnlm_fast(10**6, 256) == Recipe("IVF1024,PQ128x4fs", {"nprobe": 8, "rerank": 128})
    assert knnlm_fast(10**8, 1024).name == "IVF8192,PQ256x4fs"
    assert knnlm_fast(10**5, 64).name == "IVF256,PQ32x4fs"


@given(st.sampled_from(["knnlm", "knnlm-fast"]), st.integers(FEW, 10**9), st.integers(1, 4096))
def test_codes_always_divide_the_key_and_lists_can_be_learned(name, n, dim):
    chosen = RECIPES[name](n, dim)
    lists, codes = chosen.name.removesuffix("x4fs").split(",")
    assert dim % int(codes[2:]) == 0 and int(codes[2:]) <= max(dim // 2, 64)
    assert int(lists[3:]) >= 32 and 64 * int(lists[3:]) <= n


@pytest.mark.parametrize("name", ["knnlm", "knnlm-fast"])
def test_made_by_name(name):
    pytest.importorskip("faiss")
    chosen = RECIPES[name](10**6, 64)
    index = make_index(name, n=10**6, dim=64, device="cpu")
    assert index.name == chosen.name
    assert chosen.params.items() <= {**index.params, "rerank": index.rerank}.items()
    other = make_index(name, n=10**6, dim=64, device="cpu", params={"nprobe": 5, "rerank": False})
    assert other.params["nprobe"] == 5 and other.rerank is False
    assert make_index(name, n=100, dim=64, device="cpu", params={"nprobe": 5}).exact


def test_an_unknown_type_lists_the_names():
    with pytest.raises(
        ParameterError, match=r'"exact", "faiss",.* "auto", "knnlm", "knnlm-fast", a FAISS factory string'
    ):
        make_index(None, n=1, dim=2, device="cpu")
