"""A figure that a notebook shows by itself; matplotlib's own needs pyplot, and its list of all figures, for that."""

import io

from matplotlib.figure import Figure


class Shown(Figure):
    """matplotlib's figure, and its PNG for IPython."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=96)
        return stream.getvalue()
