"""A callback of transformers' ``Trainer``: after each epoch, what a memory would add to the model as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset

from residua.errors import MissingDependencyError
from residua.evaluation import Evaluation
from residua.integrations.watch import Build, Encode, Rows, Watch, usual_reader, usual_rows

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingDependencyError(
        'residua.integrations.transformers needs transformers; install it with: pip install "residua[trainer]"'
    ) from error


class MemoryCallback(TrainerCallback):
    """Builds a memory of `train` after each epoch, evaluates it on `test`, and logs both answers by ``trainer.log``.

    Whatever logger the trainer has then shows ``eval_base_accuracy``, ``eval_memory_accuracy``, ``eval_memory_gain``
    and the other measures of ``rs.evaluate``. Training goes on as if it had not been there: same mode, gradients,
    random states, and flow. Of several processes each does it, and one logs.

    Parameters
    ----------
    trainer : transformers.Trainer
    train, test : Dataset, texts, or anything that `encode` takes
        What is remembered, and what is asked; none of `test` in `train`. A model that has seen `train` often knows it
        by heart, and leaves a memory of it little to correct: held-out rows are better.
    build : callable, optional
        From encoded rows to a reader, such as ``lambda rows: rs.ResMem(rs.Memory(rows), k=20)``. By default ResMem
        as it comes; of texts kNN-LM.
    encode : callable, optional
        From the model and one of the two to encoded rows. By default ``rs.encode`` of what the trainer's own collator
        makes of a dataset. For a language model and its texts
        ``lambda model, texts: rs.encode((model, tokenizer), texts)``.
    prefix : str, default "eval_"
        What begins the names in the log.

    Attributes
    ----------
    results : list of Evaluation
        One of each epoch.

    Examples
    --------
    >>> trainer.add_callback(MemoryCallback(trainer, train, test))  # doctest: +SKIP
    """

    results: list[Evaluation]

    def __init__(
        self,
        trainer: Trainer,
        train: Any,
        test: Any,
        *,
        build: Build = usual_reader,
        encode: Encode | None = None,
        prefix: str = "eval_",
    ):
        self.trainer, self.results = trainer, []
        self._watch = Watch(train, test, build, encode or self._rows, prefix)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate, and log."""
        result = self._watch.evaluate(kwargs["model"])
        self.results.append(result)
        asked = control.should_log  # which every log answers, and the epoch's own is still to come
        self.trainer.log(self._watch.logged(result))
        control.should_log = asked

    def _rows(self, model: nn.Module, data: Any) -> Rows:
        items = isinstance(data, Dataset) or hasattr(type(data), "with_format")
        if not items and not (isinstance(data, list) and data and isinstance(data[0], Mapping)):
            return usual_rows(model, data)
        rows: Any = data  # of a list the trainer's own annotation does not tell, and it takes one
        theirs = self.trainer.get_eval_dataloader(rows)  # without the columns that the model does not take
        own = DataLoader(theirs.dataset, batch_size=self.trainer.args.eval_batch_size, collate_fn=theirs.collate_fn)
        return usual_rows(model, own)
