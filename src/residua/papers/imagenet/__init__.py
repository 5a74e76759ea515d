"""Table 2 of ResMem (arXiv 2302.01576): ImageNet through MobileNet-V2 at five widths."""

from residua.papers.imagenet.figure import draw
from residua.papers.imagenet.measure import run
from residua.papers.imagenet.tell import tell
from residua.papers.published import IMAGENET_MOBILENET_V2
from residua.papers.reproduction import Option, Reproduction

REPRODUCTION = Reproduction(
    title="ImageNet: ResMem on MobileNet-V2",
    source=IMAGENET_MOBILENET_V2.source,
    options={
        "data": Option(
            "imagenet", "Folder of train/<class>/ and val/<class>/ images; no part of ImageNet comes along."
        ),
        "model": Option("torchvision/mobilenet_v2", "torchvision/NAME, timm/NAME, or module:factory of your own."),
        "weights": Option("pretrained", "pretrained, random, or a .safetensors file of the model's state_dict."),
        "alpha": Option(1.0, "Width of MobileNet-V2, for the paper's row: 0.35, 0.5, 0.75, 1.0 or 1.3."),
        "shards": Option("out/imagenet", "Folder for keys; an encoding that was stopped goes on from there."),
        "shard_rows": Option(20_000, "Images in each of its files."),
        "batch_size": Option(128, "Images at a time."),
        "workers": Option(0, "Processes that read images."),
        "index": Option("exact", "Of the memory: exact, or a FAISS factory string."),
        "device": Option("auto", "Where model and memory live.", choices=("auto", "cpu", "cuda")),
    },
    run=run,
    tell=tell,
    draw=draw,
)
