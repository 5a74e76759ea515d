"""Pictures from elsewhere, and images that were spoilt, beside CIFAR-100's test images."""

import io

import numpy as np
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import residua as rs
from experiments.cifar100 import networks
from experiments.cifar100.data import SIDE, normalise
from experiments.cifar100.resnet import load
from experiments.familiarity.detectors import detectors
from experiments.machine import device_of
from residua.core import Encoded

OTHERS = {
    "digits": "handwritten digits (far)",
    "noise": "uniform noise (far)",
    "plain": "plain colours (far)",
    "blur": "blurred, σ 1.5",
    "jpeg": "JPEG, quality 10",
    "classes": "40 classes held out (near)",
}
EACH = 2000
LEVELS = (0.01, 0.05, 0.1)


def among_pictures(weights: str, data: str, device: str, known: int) -> dict:
    """``auroc``: score -> other pictures -> area; ``fresh``: p-value -> shares of test images at most at each level;
    and ``n``, the test images. With `known` classes, the first, all others are what is to be told; else `OTHERS` are.

    Odd test rows tune the reader, even ones are judged.
    """
    remembered, test = networks.encoded(weights, data, 1.0, 0, device)
    images, _ = networks.split(data, "test")
    asked, judged = test[1::2], test[0::2]
    if known:
        others = {"classes": _of(judged, judged.labels >= known, known)}
        remembered, asked, judged = (_of(rows, rows.labels < known, known) for rows in (remembered, asked, judged))
    else:
        model = load(weights).to(device_of(device), memory_format=torch.channels_last).eval()
        others = {
            name: rs.encode(model, normalise(made), batch_size=networks.BATCH, progress=False)
            for name, made in elsewhere(images[0::2], np.random.default_rng(0)).items()
        }
    memory = rs.Memory(remembered, normalise=True, device=device_of(device))
    reader = rs.tune(rs.KNNLM(memory, kernel="exponential"), asked, objective="log_loss", progress=False)
    plain = rs.ResMem(rs.Memory(remembered, device=device_of(device)), k=min(reader.k or 50, len(memory)))

    def scores(rows: Encoded) -> dict[str, np.ndarray]:
        found, logits = reader.familiarity(rows), rows.logits.dense()
        return {
            "unfamiliar": found.distance,  # the p-value's own order, and no ties beyond the last of the memory's rows
            "unsure": -found.unsure,
            "sum": -np.log(found.unfamiliar) - np.log(found.unsure),
            "unfamiliar_plain": plain.familiarity(rows).distance,
            "msp": -torch.softmax(logits, dim=1).amax(dim=1).cpu().numpy(),
            "energy": -torch.logsumexp(logits, dim=1).cpu().numpy(),
            **{name: score(rows) for name, score in others_of.items()},
        }

    others_of = detectors(remembered)
    own, familiar = scores(judged), reader.familiarity(judged)
    auroc: dict = {name: {} for name in own}
    for other, rows in others.items():
        for name, values in scores(rows).items():
            auroc[name][other] = area(own[name], values)
    p_values = {"unfamiliar": familiar.unfamiliar, "unsure": familiar.unsure}
    fresh = {name: [float((p <= level).mean()) for level in LEVELS] for name, p in p_values.items()}
    return {"auroc": auroc, "fresh": fresh, "n": len(judged)}


def area(known: np.ndarray, others: np.ndarray) -> float:
    """How often another row scores higher than a known one, a tie for half.

    >>> area(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    truth = np.repeat([0, 1], [len(known), len(others)])
    return float(roc_auc_score(truth, np.concatenate([known, others])))


def elsewhere(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Pictures uint8 (n, 32, 32, 3) by what they are; those spoilt are made of some `images`."""
    some = images[np.sort(rng.choice(len(images), min(EACH, len(images)), replace=False))]
    digits = (load_digits().images / 16 * 255).astype(np.uint8)
    grown = [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("RGB") for one in digits]
    shape = (len(some), SIDE, SIDE, 3)
    return {
        "digits": np.stack([np.asarray(one) for one in grown]),
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "plain": np.tile(rng.integers(0, 256, (len(some), 1, 1, 3), dtype=np.uint8), (1, SIDE, SIDE, 1)),
        "blur": np.stack([np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(1.5))) for one in some]),
        "jpeg": np.stack([_compressed(one) for one in some]),
    }


def _compressed(image: np.ndarray, quality: int = 10) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def _of(rows: Encoded, which: np.ndarray, known: int) -> Encoded:
    """Some rows, of whose logits the first `known` are left: a head that was never told the other classes."""
    labels = np.minimum(rows.labels[which], known - 1)
    return Encoded(rows.keys[which], rows.logits.dense()[torch.from_numpy(which)][:, :known], labels, output="logits")
