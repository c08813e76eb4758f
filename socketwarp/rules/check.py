"""Every file of rules that settings name, read as an end reads it at its start."""

from ..identity.local import readAccessRules
from ..identity.pem import SettingFile
from ..settings import CommonSettings, ConnectorSettings, ListenerSettings
from .policy import loadPolicy
from .targets import loadTargets
from .tokens import loadTokens


def checkRuleFiles(settings: CommonSettings) -> None:
    """
    Read the policy, the listener's tokens and its access file, as far as the settings name them.

    :raises errors.ConfigurationError: of the first that can't be used: the setting, the file, and what is wrong.
    """
    if isinstance(settings, ConnectorSettings) and settings.policyPath is not None:
        loadTargets(settings.policyPath)
    if not isinstance(settings, ListenerSettings):
        return
    if settings.policyPath is not None:
        loadPolicy(settings.policyPath)
    if settings.apiTokensPath is not None:
        loadTokens(settings.apiTokensPath)
    if settings.accessPath is not None:
        readAccessRules(SettingFile("SWL_ACCESS_PATH", settings.accessPath))
