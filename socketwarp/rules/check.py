"""Every file of rules that settings name, read as an end reads it at its start."""

from collections.abc import Callable, Iterator
from functools import partial

from ..identity.local import readAccessRules
from ..identity.pem import SettingFile
from ..settings import CommonSettings, ConnectorSettings, ListenerSettings
from .policy import loadPolicy
from .targets import loadTargets
from .tokens import loadTokens


def ruleFiles(settings: CommonSettings) -> Iterator[Callable[[], object]]:
    """
    A reader of each of them: the policy, the listener's tokens and its access file, as far as the settings name them.
    It raises `errors.ConfigurationError` with the setting, the file, and what is wrong.
    """
    if isinstance(settings, ConnectorSettings) and settings.policyPath is not None:
        yield partial(loadTargets, settings.policyPath)
    if not isinstance(settings, ListenerSettings):
        return
    if settings.policyPath is not None:
        yield partial(loadPolicy, settings.policyPath)
    if settings.apiTokensPath is not None:
        yield partial(loadTokens, settings.apiTokensPath)
    if settings.accessPath is not None:
        yield partial(readAccessRules, SettingFile("SWL_ACCESS_PATH", settings.accessPath))


def checkRuleFiles(settings: CommonSettings) -> None:
    """
    Read them.

    :raises errors.ConfigurationError: of the first that can't be used.
    """
    for read in ruleFiles(settings):
        read()
