"""What each remembered row is worth, and which labels somebody should look at again."""

from residua.review.audit import audit
from residua.review.queue import Audit

__all__ = ["Audit", "audit"]
