"""What may be handed over where numbers are expected."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy import typing as npt

ArrayLike: TypeAlias = npt.ArrayLike | torch.Tensor  # whatever NumPy makes an array of, and tensors
Array: TypeAlias = np.ndarray | torch.Tensor
Ids: TypeAlias = int | np.integer | np.ndarray | torch.Tensor | Sequence[int] | Sequence[Sequence[int]]  # and no words
