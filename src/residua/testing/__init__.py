"""Does your own engine or reader keep the promises that the rest of the library relies on?"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from residua.testing.index import check_index
    from residua.testing.reader import check_reader

__all__ = ["check_index", "check_reader"]

if not TYPE_CHECKING:  # a type checker reads the imports above

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"residua.testing.{name.removeprefix('check_')}"), name)
