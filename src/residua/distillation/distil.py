"""The verb: a reader's neighbours, learned by heart.

A student sees the memory's own rows. Of each it is told the label, and what the reader says of the row as if it, and
all of its id, were not remembered::

    loss = imitation · KL(reader ‖ student) + (1 − imitation) · (−log student(label))

The student is softmax(s) in a mixture, which is taught the neighbours' vote (MLP Memory, arXiv 2508.01832, eq. 4), and
softmax(f(x)/T + s) in a residual read-out, which is taught the reader's whole answer, at the reader's T.
"""

from __future__ import annotations

import logging
import math
from numbers import Real

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from residua.distillation.lessons import Lessons, lessons
from residua.errors import EmptyMemoryError, ParameterError
from residua.progress import progress_bar
from residua.readers import KNNLM, Distilled, NeighbourReader
from residua.readers.distilled import check_task
from residua.readers.neighbour import positive, whole
from residua.readers.student import READOUTS, Readout, Student

log: logging.Logger = logging.getLogger(__name__)

DECAY = 0.01  # AdamW's, of all weights
SMALL, LARGE = 16, 512  # rows of a step
ALIKE = 1e-30  # a spread of keys whose inverse is still a number


def distil(
    reader: NeighbourReader,
    *,
    readout: Readout = "mixture",
    imitation: float = 0.5,
    lmbda: float | None = None,
    gamma: float | None = None,
    blocks: int = 2,
    expansion: int = 4,
    epochs: int = 50,
    batch_size: int | None = None,
    rate: float = 5e-4,
    rows: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Distilled:
    """A reader without index that says what this one would: a small perceptron on the key, taught by it.

    The memory is read and never changed, whatever interrupts this. The student answers for the memory as it is now:
    after an edit it refuses (``StorageError``), and is to be distilled again. What was forgotten before is unknown to
    it.

    Parameters
    ----------
    reader : NeighbourReader
        The teacher, such as a tuned ``KNNLM``, of a memory of classes or tokens that has its keys.
    readout : {"mixture", "residual"}, default "mixture"
        How the student's logits s are read: ``(1 - lmbda) softmax(f(x)/T) + lmbda softmax(s)``, or ``softmax(f(x)/T +
        gamma s)``, for which the memory must keep the model's logits.
    imitation : float in [0, 1], default 0.5
        The teacher's share of the loss; the rest is the labels'. 0: labels alone, no neighbour is searched: the control
        that tells whether the memory taught anything.
    lmbda, gamma : float, optional
        Of the reader that is made, as for ``Distilled``; None: the teacher's own ``lmbda``, or 0.25; and 1. ``rs.tune``
        finds better ones.
    blocks, expansion : int, default 2 and 4
        Residual blocks, and how much wider than the key each is inside.
    epochs, batch_size, rate : int, int, float, optional
        Of AdamW, whose rate falls to 0 along a cosine. By default 50 epochs, a hundredth of the rows (16 to 512), 5e-4.
    rows : int, optional
        Learn from so many of the memory's rows, drawn by chance. None: all.
    seed : int, default 0
        The same seed makes the same student (on a CPU).
    progress : bool, optional
        A bar: always, or never; by default only on a terminal, after a second.

    Returns
    -------
    Distilled
        To be tuned, evaluated, attached and saved as any reader.

    Raises
    ------
    ParameterError, TaskError, StorageError, EmptyMemoryError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> rng = np.random.default_rng(0)
    >>> keys = rng.normal(size=(400, 2))
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((400, 2)), (keys[:, 0] * keys[:, 1] > 0).astype(int)))
    >>> student = rs.distil(rs.KNNLM(memory, k=10, lmbda=1.0), epochs=10)
    >>> student.predict(rs.Encoded([[1.0, 1.0], [1.0, -1.0]], np.zeros((2, 2)))).tolist()
    [1, 0]
    """
    if not isinstance(reader, NeighbourReader):
        raise ParameterError(
            f"got a {type(reader).__name__}; expected a reader of neighbours to learn from, such as rs.KNNLM(memory)"
        )
    memory = reader.memory
    check_task(memory)
    if reader.start() is not None:
        what = f"this {type(reader).__name__} looks back over a text, of which a key says nothing"
        raise ParameterError(f"{what}; distil one without a cache")
    if readout not in READOUTS:
        raise ParameterError(f"readout={readout!r}; expected one of {READOUTS}")
    if not (isinstance(imitation, Real) and 0 <= imitation <= 1):
        raise ParameterError(f"imitation={imitation!r}; expected the teacher's share of the loss, from 0 to 1")
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("rows", rows)):
        if value is not None:
            whole(name, value, 1, "a whole number >= 1")
    rate = positive("rate", rate)
    if not len(memory):
        raise EmptyMemoryError("the memory is empty: there is nothing to learn; add rows to it first")
    if imitation and not reader.k:
        raise ParameterError("the teacher reads no neighbours (k=0); give it some, or learn from labels: imitation=0")
    if readout == "mixture" and lmbda is None and isinstance(reader, KNNLM) and isinstance(reader.lmbda, float):
        lmbda = reader.lmbda
    shape = memory.dim, memory.n_outputs, readout, blocks, expansion
    # What does not fit is said before the work.
    Distilled(memory, _made(shape, "", seed), lmbda=lmbda, gamma=gamma, temperature=reader.temperature)
    with memory.reading():
        learned = lessons(reader, readout, imitation > 0, rows, seed, progress)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(memory.device.type, enabled=False):
        batch_size = batch_size or min(max(len(learned) // 100, SMALL), LARGE)
        student = _standardised(_made(shape, learned.rows, seed), learned.keys)
        _teach(student, learned, float(imitation), int(epochs), int(batch_size), rate, seed, progress)
    return Distilled(memory, student, lmbda=lmbda, gamma=gamma, temperature=reader.temperature)


def _made(shape: tuple[int, int, Readout, int, int], rows: str, seed: int) -> Student:
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):  # nobody else's chance is touched
        torch.manual_seed(seed)
        return Student(*shape, rows)


def _standardised(student: Student, keys: Tensor) -> Student:
    """The student, on the keys' device, to which they have mean 0 and spread 1."""
    shift = keys.mean(dim=0)
    spread = (keys - shift).float().square().mean(dim=0).sqrt()
    scale = torch.where(spread > ALIKE, 1 / spread, torch.ones_like(spread))
    return student.with_numbers(student.rows, student.to(keys.device).numbers | {"shift": shift, "scale": scale})


def _teach(
    student: Student,
    learned: Lessons,
    imitation: float,
    epochs: int,
    batch_size: int,
    rate: float,
    seed: int,
    progress: bool | None,
) -> None:
    """Teach the student, in place."""
    device, n = learned.keys.device, len(learned)
    weights = [weight.requires_grad_() for weight in student.weights]
    steps = epochs * math.ceil(n / batch_size)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    chance, loss = torch.Generator().manual_seed(seed), torch.zeros(())
    with progress_bar(progress, desc="distil", unit="step", total=steps) as bar:
        for epoch in range(epochs):
            for rows in torch.randperm(n, generator=chance).to(device).split(batch_size):
                loss = _loss(student, learned, rows, imitation)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
            log.info("distil: epoch %d of %d, loss %.4f in its last step", epoch + 1, epochs, loss.item())
    for weight in weights:
        weight.requires_grad_(False).grad = None


def _loss(student: Student, learned: Lessons, rows: Tensor, imitation: float) -> Tensor:
    said = student(learned.keys[rows])
    if learned.logits is not None:
        said = said + learned.logits.dense(rows) / learned.temperature
    said = log_softmax(said, dim=1)
    loss = (imitation - 1) * said.gather(1, learned.labels[rows, None])[:, 0]
    if learned.classes is not None and learned.shares is not None:  # less the teacher's entropy, the KL divergence
        named = said if learned.classes.shape[1] == said.shape[1] else said.gather(1, learned.classes[rows].long())
        loss = loss - imitation * (learned.shares[rows] * named).sum(dim=1)
    if learned.weights is None:
        return loss.mean()
    weights = learned.weights[rows]
    return (loss * weights).sum() / weights.sum().clamp_min(1e-30)
