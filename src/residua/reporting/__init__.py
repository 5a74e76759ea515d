"""One page about one memory: did it help, where, at what cost, what did it break, and what to try next."""

from residua.reporting.report import Report, report

__all__ = ["Report", "report"]
