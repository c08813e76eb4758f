"""
Frozen, typed settings of both ends, and the one place where each is named.

`ListenerSettings` and `ConnectorSettings` hold the values; every field carries its environment name, flag, file key and
help as metadata (`_fields`), is read from text or file by a kind (`_kinds`, `_rules`, `_proxy`) and found by `load`:
flag before environment before file before default (`_load`). Every failure is one line of `errors.ConfigurationError`.
Imports `errors` only.
"""

from ._connector import ConnectorSettings
from ._fields import CommonSettings, Setting, settingsOf
from ._listener import ListenerSettings
from ._load import Effective, effective, load
from ._proxy import Proxy
from ._rules import ANY_PORT, ListenerName, PortRange, TargetRule, parsePortRanges, parseTargetRules

__all__ = [
    "ANY_PORT",
    "CommonSettings",
    "ConnectorSettings",
    "Effective",
    "ListenerName",
    "ListenerSettings",
    "PortRange",
    "Proxy",
    "Setting",
    "TargetRule",
    "effective",
    "load",
    "parsePortRanges",
    "parseTargetRules",
    "settingsOf",
]
