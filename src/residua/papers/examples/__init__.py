"""Figure 3 of ResMem (arXiv 2302.01576): images that the memory corrected, and the memories that did."""

from residua.papers.examples.figure import draw
from residua.papers.examples.find import run
from residua.papers.examples.tell import tell
from residua.papers.published import CIFAR100_EXAMPLES
from residua.papers.reproduction import Option, Reproduction

REPRODUCTION = Reproduction(
    title="Examples: what the memory corrects on CIFAR-100, and what it breaks",
    source=CIFAR100_EXAMPLES.source,
    options={
        "weights": Option("", "A trained CIFAR-ResNet (.safetensors), such as reproduce cifar100 leaves."),
        "data": Option("data", "Folder of cifar-100-python, or of train/ and test/ mosaics."),
        "download": Option("no", "Whether torchvision may fetch the data.", choices=("no", "yes")),
        "shown": Option(8, "Images in the figure."),
        "memories": Option(6, "Memories beside each."),
        "pairs": Option(12, "Confusions in each table."),
        "device": Option("auto", "Where network and memory live.", choices=("auto", "cpu", "cuda")),
    },
    run=run,
    tell=tell,
    draw=draw,
)
