"""Where residua finds the shared library of its native kernels."""

import sys
from pathlib import Path

LIBRARY = Path(__file__).with_name("kernels.dll" if sys.platform == "win32" else "kernels.so")
