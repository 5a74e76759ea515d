"""A callback of Lightning's ``Trainer``: after each epoch, what a memory would add to the module as it is."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

from residua.errors import MissingDependencyError
from residua.evaluation import Evaluation
from residua.integrations.watch import Build, Encode, Rows, Watch, usual_reader, usual_rows

try:
    # Two packages of the same: the one that is in use.
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning import Callback  # pyright: ignore[reportMissingImports]
    else:
        try:
            from lightning.pytorch import Callback  # pyright: ignore[reportMissingImports]
        except ImportError:
            from pytorch_lightning import Callback  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MissingDependencyError(
        'residua.integrations.lightning needs lightning; install it with: pip install "residua[lightning]"'
    ) from error


class MemoryCallback(Callback):
    """Builds a memory of `train` after each epoch, evaluates it on `test`, and logs both answers by ``log_dict``.

    Whatever logger the trainer has then shows ``val_base_accuracy``, ``val_memory_accuracy``, ``val_memory_gain`` and
    the other measures of ``rs.evaluate``; ``ModelCheckpoint`` and ``EarlyStopping`` can go by them. Training goes on as
    if it had not been there: same mode, gradients and random states. Of several processes each does it.

    Parameters
    ----------
    train, test : Dataset, DataLoader, or anything that `encode` takes
        What is remembered, and what is asked; none of `test` in `train`. A model that has seen `train` often knows it
        by heart, and leaves a memory of it little to correct: held-out rows are better.
    build : callable, optional
        From encoded rows to a reader, such as ``lambda rows: rs.ResMem(rs.Memory(rows), k=20)``. By default ResMem
        as it comes; of texts kNN-LM.
    encode : callable, optional
        From the module and one of the two to encoded rows. By default ``rs.encode(module, data)``, which needs the
        module's own ``forward``; else such as ``lambda module, data: rs.encode(module.network, data)``. It runs in the
        precision in which the trainer validates.
    prefix : str, default "val_"
        What begins the names in the log.

    Attributes
    ----------
    results : list of Evaluation
        One of each epoch.

    Examples
    --------
    >>> trainer = lightning.Trainer(callbacks=[MemoryCallback(train, test)])  # doctest: +SKIP
    """

    results: list[Evaluation]

    def __init__(
        self,
        train: Any,
        test: Any,
        *,
        build: Build = usual_reader,
        encode: Encode = usual_rows,
        prefix: str = "val_",
    ):
        self.results = []
        self._watch = Watch(train, test, build, encode, prefix)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluate, and log."""
        result = replace(self._watch, encode=partial(self._rows, trainer)).evaluate(pl_module)
        self.results.append(result)
        pl_module.log_dict(self._watch.logged(result), on_step=False, on_epoch=True)

    def _rows(self, trainer: Any, module: Any, data: Any) -> Rows:
        """As it is encoded, in the trainer's precision, which is not that of a memory's distances."""
        precision = trainer.precision_plugin
        hook = module.register_forward_pre_hook(lambda _, inputs: precision.convert_input(inputs))
        try:
            with precision.val_step_context():
                return self._watch.encode(module, data)
        finally:
            hook.remove()
