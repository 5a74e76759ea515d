"""The one progress bar: what ``progress=`` means, wherever something takes long."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm


def progress_bar(progress: bool | None, **options: Any) -> tqdm[Any]:
    """A bar on stderr that is gone at the end. `options` are tqdm's.

    `progress` None: only on a terminal, and after a second, so that a log file holds no bars and quick work shows none;
    True: always, and at once; False: never.
    """
    hidden = None if progress is None else not progress
    return tqdm(**{"disable": hidden, "delay": 0.0 if progress else 1.0, "leave": False} | options)
