"""
The HTTP calls: the original's ``/open``, ``/list`` and ``/close``, and ``/v1``.

The only package that imports klein, which installs a reactor; so it is imported late, by the tap's `makeService`. `app`
holds the table of calls, to which `original`, `ports`, `connectors`, `watching` and `asking` add theirs. `access` says
who calls, `problems` what an error looks like, `bodies` what a call's body may be, `openapi` and `shapes` describe
it all, `server` is the HTTP server. May import what ``listener`` may, but ``quic``.
"""

from . import asking, connectors, original, ports, watching
from .app import Api
from .make import makeApi
from .server import ApiServer, makeSite

__all__ = ["Api", "ApiServer", "asking", "connectors", "makeApi", "makeSite", "original", "ports", "watching"]
