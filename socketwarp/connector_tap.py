"""``twistd swconnector``: the connector's options, and its service on the global reactor."""

from typing import Any, ClassVar

from twisted.application.service import IService

from .connector.service import makeConnector
from .process import EndOptions, makeEnd, parametersOf
from .settings import ConnectorSettings


class Options(EndOptions):
    """Options of ``twistd swconnector``."""

    endName: ClassVar[str] = "swconnector"
    optParameters: ClassVar[list[list[str | None]]] = parametersOf(ConnectorSettings)
    longdesc = (
        "Stays connected to a listener and dials its visitors' targets. "
        "An option goes before its environment variable, and that before the settings file (settings.json)."
    )
    examples = """\
Examples:
  twistd --nodaemon swconnector
      in the foreground, with the settings.json of this directory
  twistd --nodaemon swconnector --config connector.toml --check
      print the settings that would be in effect, and where each comes from
  twistd --nodaemon swconnector --config connector.toml \\
      --allow-targets '127.0.0.1:22,*.lan:8000-8099'
      dial these and nothing else
  SWC_LOG_FORMAT=json twistd --nodaemon swconnector --config connector.toml
      log one JSON object on each line
"""


def makeService(options: Options, reactor: Any = None) -> IService:  # Any: the whole reactor, see process.makeEnd
    """
    Make the connector, on the global reactor unless another is given.

    :raises SystemExit: with status 78 when a setting, or a file it names, can't be used.
    """
    if reactor is None:
        from twisted.internet import reactor

    return makeEnd(ConnectorSettings, options, reactor, makeConnector)
