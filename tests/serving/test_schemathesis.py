"""What Schemathesis makes of the OpenAPI page, where it is installed (``make serve-test``): requests of every shape."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import residua as rs

FOUND = shutil.which("schemathesis", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
NET = """
import torch


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()
"""
# 422 says that a request is what its schema asks for, and cannot be used all the same: a text of too many tokens.
SETTINGS = '[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "404", "409", "422"]\n'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason="Schemathesis is not installed: make serve-test"),
]


def nothing_is_found(url, folder, process, examples=20):
    (folder / "schemathesis.toml").write_text(SETTINGS)
    command = [FOUND, "run", f"{url}/openapi.json", "--max-examples", str(examples), "--workers", "1", "--seed", "1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "No issues found" in done.stdout or "warning" in done.stdout
    assert '"event": "failure"' not in process.log.read_text()


def test_nothing_is_found_of_rows(tmp_path, served, network, examples):
    (tmp_path / "net.py").write_text(NET)
    rs.ResMem(rs.Memory(rs.encode(network, examples(60))), k=5, sigma=0.5).save(tmp_path / "mem")
    url, process = served("mem", "--model", "net:model", "--input-shape", "3", "--max-rows", "8")
    nothing_is_found(url, tmp_path, process)


def test_nothing_is_found_of_texts(tmp_path, served, tiny_model, tiny_tokenizer):
    pair = tiny_model("gpt2"), tiny_tokenizer
    for part in pair:
        part.save_pretrained(tmp_path / "gpt2")
    memory = rs.lm.remember(*pair, [("keeper", "The lighthouse keeper counts ships.")], index="exact")
    rs.KNNLM(memory, k=3, sigma=1.0).save(tmp_path / "mem")
    url, process = served("mem", "--model", "gpt2", "--max-rows", "4", "--max-tokens", "16")
    nothing_is_found(url, tmp_path, process, examples=10)
