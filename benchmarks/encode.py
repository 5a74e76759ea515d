"""``encode`` against a bare forward pass over the same loader (target: at most 1.10 times as long)."""

from __future__ import annotations

import torch

import residua as rs
from benchmarks._cifar import loader, model
from benchmarks._timing import in_turn


def main() -> dict:
    """Both on 10 000 CIFAR-100 test images, ResNet-8, batches of 256, in turn."""
    net, data = model(), loader("test", batch_size=256)

    def forward():
        with torch.inference_mode():
            for images, _ in data:
                net(images)

    took = in_turn({"forward": forward, "encode": lambda: rs.encode(net, data, progress=False)}, repeat=5)
    return {
        "images": len(data.dataset),
        "forward_s": round(took["forward"], 3),
        "encode_s": round(took["encode"], 3),
        "ratio": round(took["encode"] / took["forward"], 3),
        "target_ratio": 1.10,
    }
