"""lm-evaluation-harness with a memory: its model ``residua``.

Importing this module registers it, for ``lm_eval.simple_evaluate(model="residua", model_args=...)``. It is the
harness's own Hugging Face model with a reader attached, so whatever a task asks for is answered with the memory.
"""

import difflib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from residua.encoding.text import tokenizer_hash
from residua.errors import InputError, MemoryFileError, MissingDependencyError, ParameterError
from residua.folder import has_reader
from residua.hooks.handle import Handle, attach
from residua.memory import Memory
from residua.readers import Reader, load
from residua.readers.reader import reader_class

try:
    # A large package that few have, and that says little of its types.
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MissingDependencyError(
        'residua.hooks.lm_eval needs lm-evaluation-harness; install it with: pip install "residua[lm-eval]"'
    ) from error


@register_model("residua")
class ResiduaLM(HFLM):
    """A Hugging Face model with its memory.

    Parameters
    ----------
    pretrained : str or transformers.PreTrainedModel
        What made the memory: a folder, a name on the hub, or the model itself (then give ``tokenizer=``).
    memory : path or Reader
        A memory's folder, or a reader of one.
    reader : str, optional
        How to read a folder: a registered reader's name in small letters, such as ``"knnlm"``. None: as saved there.
    memory_device : str, default "cpu"
        Where a folder's memory is searched.
    **options
        The reader's parameters by name (``k``, ``sigma``, ...), which change a saved reader's; the others go to
        ``HFLM``: ``batch_size``, ``device``, ``dtype``, ``max_length``, ...

    Attributes
    ----------
    handle : Handle
        What holds the memory to the model: ``handle.disabled()`` is the base alone.

    Raises
    ------
    MemoryFileError, SourceMismatchError, ParameterError, InputError

    Examples
    --------
    ::

        lm_eval.simple_evaluate("residua", "pretrained=model/,memory=mem/,reader=knnlm,k=64,lmbda=0.3", tasks=[...])
        lm_eval.simple_evaluate(ResiduaLM(pretrained="model/", memory=reader), tasks=[...])
    """

    handle: Handle

    def __init__(
        self,
        pretrained: Any,
        memory: str | os.PathLike[str] | Reader,
        reader: str | None = None,
        *,
        memory_device: str = "cpu",
        **options: Any,
    ):
        chosen, options = _chosen(memory, reader, memory_device, options)
        if not chosen.memory.schema.is_text:
            raise InputError("this memory is not of tokens; build one of text: rs.lm.remember, or residua build --text")
        super().__init__(pretrained, **options)
        source = chosen.memory.source
        if source is not None and "tokenizer" in source.extra:
            source.require(replace(source, extra=source.extra | {"tokenizer": tokenizer_hash(self.tokenizer)}))
        self.handle = attach(self.model, chosen)

    def get_model_info(self) -> dict[str, Any]:
        """The harness's record of the model, with the reader's."""
        reader = self.handle.reader
        return {**super().get_model_info(), "memory": {"rows": len(reader.memory), **reader.to_json()}}


def compare(
    lm: ResiduaLM,
    tasks: Iterable[str],
    *,
    include_path: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score tasks twice, with the model alone and with its memory.

    `tasks` are names of tasks, groups or tags, or paths of task files; `include_path` is a folder of more of them,
    `limit` the examples per task, and `options` (such as ``num_fewshot``) are those of ``lm_eval.simple_evaluate``.

    Gives task, then metric -> ``{"base", "memory", "base_stderr", "memory_stderr", "higher_is_better"}``, where errors
    that the harness does not know are None.
    """
    tasks = list(tasks)
    manager = _manager(tasks, include_path)
    options |= {"tasks": tasks, "task_manager": manager, "limit": limit, "log_samples": False}
    try:
        with lm.handle.disabled():
            base = simple_evaluate(lm, **options)
        memory = simple_evaluate(lm, **options)
    except OSError as error:  # data sets are files here, or on a hub that may be out of reach
        if isinstance(error, MemoryFileError):
            raise
        raise InputError(f"a task's data cannot be read: {error}") from error
    return {task: dict(_metrics(task, base, memory)) for task in base["results"]}


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block the harness logs errors alone."""
    log = logging.getLogger("lm_eval")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _manager(tasks: list[str], include_path: str | os.PathLike[str] | None) -> TaskManager:
    folder = None if include_path is None else str(include_path)
    if folder is not None:
        if not Path(folder).is_dir():
            raise InputError(f"include_path={folder!r} is no folder; expected the one with the tasks' YAML")
        # The harness reads its own fifteen thousand task files first, half a minute of work, unless told not to.
        own = TaskManager(include_path=folder, include_defaults=False)
        if set(tasks) <= set(own.all_subtasks):
            return own
    manager = TaskManager(include_path=folder)
    for name in tasks:
        if name not in manager.task_index and not Path(name).is_file():
            near = ", ".join(difflib.get_close_matches(name, manager.all_tasks))
            hint = f"the nearest names are {near}" if near else "pass include_path=, the folder that defines it"
            raise InputError(f"the harness has no task {name!r}; {hint}")
    return manager


def _chosen(
    memory: str | os.PathLike[str] | Reader, name: str | None, device: str, options: dict[str, Any]
) -> tuple[Reader, dict[str, Any]]:
    """The reader that is meant, and the options that are not its own."""

    def own(cls: type[Reader]) -> dict[str, Any]:
        return {key: options.pop(key) for key in cls.parameter_names() if key in options and key != "over"}

    if isinstance(memory, Reader):
        if name is not None:
            raise ParameterError(f"reader={name!r}, and memory= is a {type(memory).__name__} already; give one of them")
        found = memory
    elif name is not None:
        cls = reader_class(name)
        return cls(Memory.load(memory, device), **own(cls)), options
    else:
        if Path(memory).is_dir() and not has_reader(Path(memory)):
            raise MemoryFileError(f"{memory} holds no tuned reader; save one there, or name one: reader='knnlm'")
        found = load(memory, device)
    given = own(type(found))
    return (found.with_params(**given) if given else found), options


def _metrics(task: str, base: dict[str, Any], memory: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(metric, its two scores), of the harness's keys ``"metric,filter"`` and ``"metric_stderr,filter"``."""
    scores, higher = base["results"][task], base.get("higher_is_better", {}).get(task, {})
    for key, score in scores.items():
        metric, _, kept = key.partition(",")
        if not isinstance(score, (int, float)) or not kept or metric.endswith("_stderr"):
            continue
        error = f"{metric}_stderr,{kept}"
        found = {
            "base": score,
            "memory": memory["results"][task][key],
            "base_stderr": _number(scores.get(error)),
            "memory_stderr": _number(memory["results"][task].get(error)),
            "higher_is_better": higher.get(metric),
        }
        yield (metric if kept == "none" else key), found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
