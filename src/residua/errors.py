"""Everything residua can raise, in one tree.

::

    ResiduaError
    ├── InputError (ValueError)         what was handed in cannot be used
    │   ├── ShapeError                  arrays whose shapes do not fit together
    │   ├── NonFiniteError              NaN or infinity where numbers are needed
    │   ├── LabelError                  missing, unseen, out-of-range or multi-label targets
    │   ├── IdError                     duplicate, unknown or malformed ids
    │   ├── ParameterError              k, sigma, temperature, lmbda, a name out of its range
    │   └── TaskError                   neither classification nor regression, or the other one
    ├── EncodeError                     a model that cannot be turned into keys and logits
    │   ├── KeyModuleError              the key module does not exist, or does not fire exactly once
    │   └── DtypeError                  the model's dtype does not fit the data's
    ├── EmptyMemoryError                nothing is remembered, and the call needs something
    ├── SourceMismatchError             the memory belongs to another model
    ├── StorageError                    this memory does not store what the call needs
    ├── EngineError                     a server that holds an index does not answer in time, or refuses
    ├── MemoryFileError (OSError)       a folder or file is missing, torn, corrupted or cannot be written
    │   └── StaleMemoryError            somebody else saved into the folder since this memory was loaded from it
    └── MissingDependencyError (ImportError)

Each message says what was given, what was expected and what to do about it.
"""

from residua.printable import one_line


class ResiduaError(Exception):
    """Base of every error raised on purpose by residua. What it says of files, names and labels is shown on one line,
    without their control characters."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class InputError(ResiduaError, ValueError):
    """What was handed in cannot be used."""


class ShapeError(InputError):
    """Arrays whose shapes do not fit together."""


class NonFiniteError(InputError):
    """NaN or infinity where finite numbers are needed."""


class LabelError(InputError):
    """Missing, unseen, out-of-range or multi-label targets."""


class IdError(InputError):
    """Duplicate, unknown or malformed ids."""


class ParameterError(InputError):
    """A parameter outside its range, or an unknown name."""


class TaskError(InputError):
    """Data that is neither classification nor regression, or is the other one."""


class EncodeError(ResiduaError):
    """A model that cannot be turned into keys and logits."""


class KeyModuleError(EncodeError):
    """The key module does not exist, or does not fire exactly once per forward pass."""


class DtypeError(EncodeError):
    """The model's dtype does not fit the data's."""


class EmptyMemoryError(ResiduaError):
    """Nothing is remembered, and the call needs something."""


class SourceMismatchError(ResiduaError):
    """The memory was built by another model (or another layer of it)."""


class StorageError(ResiduaError):
    """This memory does not store what the call needs."""


class EngineError(ResiduaError):
    """A server that holds an index cannot be reached, does not answer in time, or refuses."""


class MemoryFileError(ResiduaError, OSError):
    """A memory folder or file is missing, torn, corrupted or cannot be written."""


class StaleMemoryError(MemoryFileError):
    """Somebody else saved into the folder since this memory was loaded from it, or saved to it."""


class MissingDependencyError(ResiduaError, ImportError):
    """An optional dependency is needed for this call; the message names the extra."""
