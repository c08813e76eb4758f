"""``twistd swlistener``: the listener's options, and its service on the global reactor."""

from typing import Any, ClassVar

from twisted.application.service import IService

from .process import EndOptions, makeEnd, parametersOf
from .settings import ListenerSettings


class Options(EndOptions):
    """Options of ``twistd swlistener``."""

    endName: ClassVar[str] = "swlistener"
    optParameters: ClassVar[list[list[str | None]]] = parametersOf(ListenerSettings)
    longdesc = (
        "Accepts connectors over QUIC and visitors on the TCP ports that the API opens. "
        "An option goes before its environment variable, and that before the settings file."
    )
    examples = """\
Examples:
  twistd --nodaemon swlistener --config listener.toml
      in the foreground, as a service manager runs it
  twistd --nodaemon swlistener --config listener.toml --check
      print the settings that would be in effect, and where each comes from
  SWL_VERIFIER=local twistd --nodaemon swlistener --cert-path listener.crt \\
      --key-path listener.key --ca-path ca.crt --allow-ports 18000-18999
      without a file: variables and options
  twistd --pidfile /run/swlistener.pid --logfile /var/log/swlistener.log \\
      swlistener --config /etc/socketwarp/swlistener.toml
      as a daemon
"""


def makeService(options: Options, reactor: Any = None) -> IService:  # Any: the whole reactor, see process.makeEnd
    """
    Make the listener, on the global reactor unless another is given.

    :raises SystemExit: with status 78 when a setting, or a file it names, can't be used.
    """
    if reactor is None:
        from twisted.internet import reactor
    from .listener.service import makeListener  # here, since it imports klein, which installs a reactor

    return makeEnd(ListenerSettings, options, reactor, makeListener)
