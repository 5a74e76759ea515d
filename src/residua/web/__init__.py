"""What every server of a memory needs: who calls, how much may come, how a no is said, and a port of this machine."""

from residua.web.bodies import TooLarge, declared, limited
from residua.web.callers import loopback_hosts, stranger
from residua.web.headers import with_headers
from residua.web.sockets import bound

__all__ = ["TooLarge", "bound", "declared", "limited", "loopback_hosts", "stranger", "with_headers"]
