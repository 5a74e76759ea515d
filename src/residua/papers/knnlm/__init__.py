"""kNN-LM (arXiv 1911.00172), its tables and figures, and ResMem's Table 3, on any causal language model and texts."""

from residua.papers.knnlm.figure import draw
from residua.papers.knnlm.plan import run
from residua.papers.knnlm.tell import tell
from residua.papers.published import KNNLM
from residua.papers.reproduction import Option, Reproduction

__all__ = ["REPRODUCTION"]

REPRODUCTION = Reproduction(
    title="kNN-LM: a memory for a language model",
    source=f"{KNNLM}, Tables 1, 4 and 5, Figures 2, 4 and 5; ResMem (arXiv 2302.01576), Table 3",
    options={
        "model": Option("../shared/models/code-gpt2", "A transformers causal language model: folder or name."),
        "texts": Option("", "Folder to remember; by default Python's own library, by the split.json beside the model."),
        "validation": Option("", "Folder to tune on; without it and --test, files of --texts are set aside."),
        "test": Option("", "Folder to score."),
        "domain": Option(
            ("scikit-learn=package:sklearn",), "Other texts, NAME=FOLDER or NAME=package:PACKAGE (its source)."
        ),
        "glob": Option("**/*.py", "Which files of a folder."),
        "window": Option(256, "Tokens the model sees at a time."),
        "stride": Option(192, "By how much windows advance."),
        "memory_tokens": Option(2_000_000, "Tokens to remember, of each domain."),
        "eval_tokens": Option(40_000, "Tokens to score, of each domain; half as many others are tuned on."),
        "sizes": Option((0.1, 0.25, 0.5), "Shares of the memory to measure, beside all of it."),
        "index": Option("knnlm-fast", "As rs.Memory takes it; knnlm is the paper's recipe, which takes long to train."),
        "checkpoints": Option("out/knnlm", "Folder for memories; a build that was stopped goes on from there."),
        "device": Option("auto", "Where the model runs.", choices=("auto", "cpu", "cuda")),
    },
    run=run,
    tell=tell,
    draw=draw,
)
