"""What a user's type checker makes of the package: every public call is known to it, and misspelt ones are reported."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed: pip install residua[test]"
)

COMPLETE = 0.95  # of the public names, those whose type is known without guessing
SOURCE = Path(__file__).resolve().parents[1] / "src"

# "#: type" is what the checker must reveal of the line's last argument, "#! " that it must report the line.
PROGRAM = """
import numpy as np
import torch
import residua as rs
from residua.core import Neighbours
from residua.readers import Kernel, NeighbourReader, register_reader

model, x, y = torch.nn.Linear(4, 3), torch.randn(8, 4), torch.arange(8) % 3
tokenizer = lambda texts, **options: {"input_ids": [[1, 2] for _ in texts]}

enc = rs.encode(model, (x, y), key="fc:input", batch_size=4, ids=np.arange(8), progress=False)
reveal_type(enc)                                                    #: Encoded
reveal_type(enc[3])                                                 #: Encoded
reveal_type(enc[enc.keys[:, 0] > 0])                                #: Encoded
reveal_type(rs.encode((model, tokenizer), ["a text"], window=8))    #: TextStream
reveal_type(rs.lm.encode(model, tokenizer, "texts/", glob="*.py"))  #: TextStream
reveal_type(rs.Encoded([[0.0]], np.zeros((1, 2)), [1]).labels)      #: ndarray | None
rs.encode(model, (x, y), kye="fc")                                  #!
rs.encode(model, (x, y), task="clasification")                      #!
rs.encode((model, tokenizer), ["a text"], windw=8)                  #!
rs.lm.encode(model, tokenizer, "texts/", glbo="*.py")               #!
rs.encod(model, (x, y))                                             #!

memory = rs.Memory(enc, storage="top-m", key_dtype="float16", index="IVF16,PQ8", device="cpu")
reveal_type(memory.schema.task)                      #: Literal['classification', 'regression', 'multi-label']
reveal_type(memory.search(x, 3, exclude=[1] * 8))                   #: Neighbours
reveal_type(rs.Memory.load("memory/"))                              #: Memory
reveal_type(rs.lm.remember(model, tokenizer, ["a text"], m=64))     #: Memory
rs.Memory(enc, storage="ful")                                       #!
rs.Memory(enc, key_dtype="float8")                                  #!
memory.forget("seven")                                              #!
memory.drop_keys()                                                  #!

reader = rs.ResMem(memory, k=3, kernel="gaussian", space="exponent")
reveal_type(reader.scores(enc, exclude="own"))                      #: ndarray
reveal_type(reader.with_params(k=2))                                #: ResMem
reveal_type(rs.load("memory/"))                                     #: Reader
rs.KNNLM(memory, lmbda=rs.AdaptiveLambda([1.0], [0.5, 0.1]), kernel=Kernel("mine", lambda d, sigma: -d / sigma))
rs.ResMem(memory, kernel="gausian")                                 #!
rs.ResMem(memory, kk=3)                                             #!
rs.ResMem(memory, space="logit")                                    #!
rs.KNNLM(memory, lmbda="0.5")                                       #!
reader.scores(enc, exclude="ow")                                    #!
reader.gate                                                         #!

best = rs.tune(reader, enc, {"k": [1, 2], "sigma": np.geomspace(0.1, 1, 3)}, objective="log_loss")
reveal_type(best)                                                   #: ResMem
reveal_type(rs.tune(rs.ContinuousCache(best), enc))                 #: ContinuousCache
reveal_type(best.best_params_)                                      #: dict[str, Any]
reveal_type(best.best_score_)                                       #: float
rs.tune(reader, enc, objective=3)                                   #!
rs.tune(memory, enc)                                                #!

reveal_type(rs.Pooled(memory, widths=[0.3, 1]).fit(calibration=enc))  #: Pooled
rs.Pooled(memory).fit(evidence="sure")                              #!
reveal_type(rs.RanPAC(memory, 500, coefficients=(0, 1)).fit(enc))   #: RanPAC

gated = rs.Gated(memory, form="gate", cache=2000).fit(enc, evidence=None)
reveal_type(gated)                                                  #: Gated
reveal_type(rs.lm.fit(model, tokenizer, gated))                     #: Gated
reveal_type(rs.lm.draft(gated, tokens=8))                           #: Drafts
rs.lm.draft("mem/")                                                 #!
rs.Gated(memory, form="soft")                                       #!
gated.fit("texts/")                                                 #!

result = rs.evaluate(best, enc, groups="ids", n_bootstrap=100)
reveal_type(result)                                                 #: Evaluation
reveal_type(result.accuracy)                                        #: float | None
reveal_type(result.p_value)                                         #: float
reveal_type(rs.lm.evaluate(model, tokenizer, "t/", best, seed=1))   #: Evaluation
rs.evaluate(best, enc, groups="id")                                 #!
result.acuracy                                                      #!
result.memory                                                       #!

review = rs.audit(reader, enc, duplicates=0.2)
reveal_type(review)                                                 #: Audit
reveal_type(review.to_frame())                                      #: DataFrame
rs.audit(memory, epsilom=0.1)                                       #!
why = rs.explain(best, enc[7], exclude=[3], context=4)
reveal_type(why.contributions)                                      #: ndarray
why.tokens                                                          #!

page = rs.report(best, enc, validation=enc, images=x, path=None, title="A memory")
reveal_type(page)                                                   #: Report
reveal_type(page.html)                                              #: str
reveal_type(page.answers[0].lines)                                  #: list[str]
rs.report(best, enc, image=x)                                       #!
rs.report(memory, enc)                                              #!

sure = rs.conformal(best, enc, score="aps", by="class")
reveal_type(sure)                                                   #: Conformal
reveal_type(sure.predict_set(enc, confidence=0.9))                  #: ndarray
reveal_type(sure.evaluate(enc).aurc)                                #: float | None
reveal_type(best.familiarity(enc).unfamiliar)                       #: ndarray
reveal_type(best.predict(enc, unknown=0.01))                        #: ndarray
rs.conformal(best, enc, by="clas")                                  #!
rs.conformal(best, enc, alpha=0.1)                                  #!

with rs.attach(model, best, key="fc:input") as handle:
    reveal_type(handle)                                             #: Handle
    reveal_type(handle.reader)                                      #: Reader


@register_reader
class Nearest(NeighbourReader):
    def __init__(self, memory: rs.Memory, k: int = 1):
        super().__init__(memory, k, None, 1.0, "exponential")

    def weights(self, neighbours: Neighbours, queries: object) -> torch.Tensor:
        return neighbours.found.float()


reveal_type(rs.tune(Nearest(memory), enc))                          #: Nearest
"""


def checker(*options: str) -> dict:
    """What basedpyright says with this Python's packages, as JSON."""
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson", *options]
    # An installation in place is a line of a .pth file, which --verifytypes does not read.
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)})
    return json.loads(done.stdout)


@pytest.mark.slow
def test_right_calls_have_their_types_and_wrong_ones_are_reported(tmp_path: Path):
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    (tmp_path / "program.py").write_text(PROGRAM)
    revealed, reported = {}, {}
    for found in checker("--project", str(tmp_path))["generalDiagnostics"]:
        line = found["range"]["start"]["line"]
        if said := re.fullmatch(r'Type of ".*" is "(.*)"', found["message"], re.DOTALL):
            revealed[line] = re.sub(r"ndarray\[.*dtype\[Any\]\]", "ndarray", said.group(1))
        elif found["severity"] == "error":
            reported[line] = found["message"]
    lines = PROGRAM.split("\n")
    assert revealed == {n: line.partition("#: ")[2] for n, line in enumerate(lines) if "#: " in line}
    assert {lines[n]: said for n, said in reported.items() if not lines[n].endswith("#!")} == {}
    assert [line for n, line in enumerate(lines) if line.endswith("#!") and n not in reported] == []


@pytest.mark.slow
def test_nearly_every_public_name_has_a_known_type():
    symbols = checker("--verifytypes", "residua", "--ignoreexternal")["typeCompleteness"]["symbols"]
    public = {s["name"]: s for s in symbols if s["isExported"]}
    unknown = [name for name, s in public.items() if not s["isTypeKnown"] or s["isTypeAmbiguous"]]
    assert {f"residua.{name}" for name in ("ResMem", "encode", "tune", "evaluate", "Memory")} <= set(public)
    assert 1 - len(unknown) / len(public) >= COMPLETE, unknown
