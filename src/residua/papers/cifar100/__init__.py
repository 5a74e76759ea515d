"""CIFAR-100 and CIFAR-ResNets: what the ResMem paper's §4.1 (arXiv 2302.01576) starts from, and its measurements."""

from residua.papers.cifar100.data import CLASS_NAMES, Cifar100, read
from residua.papers.cifar100.figure import draw
from residua.papers.cifar100.plan import run
from residua.papers.cifar100.recipe import PAPER_EPOCHS, PRECISIONS
from residua.papers.cifar100.resnet import CifarResNet, load
from residua.papers.cifar100.tell import tell
from residua.papers.published import RESMEM
from residua.papers.reproduction import Option, Reproduction

__all__ = ["CLASS_NAMES", "REPRODUCTION", "Cifar100", "CifarResNet", "load", "read"]

REPRODUCTION = Reproduction(
    title="CIFAR-100: ResMem on CIFAR-ResNets",
    source=f"{RESMEM}, sections 4.2 and 4.4, Table 1, Figures 2, 4 and 5",
    options={
        "depth": Option((8,), "Depths 6n + 2; the first, on the largest share, is the headline's."),
        "epochs": Option(PAPER_EPOCHS, "Epochs to train; with others than the paper's, its epoch marks are scaled."),
        "fraction": Option((1.0,), "Shares of the training images to train on and to remember."),
        "seeds": Option(5, "Trainings of the headline's network."),
        "others": Option(1, "Trainings of each other depth and share."),
        "crossed": Option(0, "How many of the depths, the first ones, are trained on every share; 0 is all."),
        "weights": Option(("",), "Trained networks (.safetensors) to measure instead of training any."),
        "trained_epochs": Option(0, "For how many epochs those were trained, to be told beside the result."),
        "data": Option("data", "Folder of cifar-100-python, or of train/ and test/ mosaics."),
        "download": Option("no", "Whether torchvision may fetch the data.", choices=("no", "yes")),
        "checkpoints": Option("out/cifar100", "Folder for trainings; one that was stopped goes on from there."),
        "precision": Option("float32", "Of the training; bf16 pays where the hardware has it.", choices=PRECISIONS),
        "device": Option("auto", "Where networks and memories live.", choices=("auto", "cpu", "cuda")),
    },
    run=run,
    tell=tell,
    draw=draw,
)
