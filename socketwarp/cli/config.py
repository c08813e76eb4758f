"""``socketwarp config check``: the settings that are in effect."""

import os

import attrs
import click

from ..rules.check import checkRuleFiles
from ..settings import ConnectorSettings, ListenerSettings, effective, load
from ._options import asJson
from ._show import showJson, showTable

_ENDS = {"listener": ListenerSettings, "connector": ConnectorSettings}


@click.group("config")
def config() -> None:
    """Settings of either end."""


@config.command("check", short_help="Print the settings, and where each comes from.")
@click.argument("end", type=click.Choice([*_ENDS]))
@click.option("--config", "file", type=click.Path(), help="Settings file, as for the end itself.")
@asJson
def check(end: str, file: str | None, asJson: bool) -> None:
    """
    Print the settings of an END (listener or connector), and where each comes from; secrets are masked.

    Run it in the end's directory and with its environment. Ends with 78 if a setting can't be used, or a file of rules
    that one names: policy, tokens, access. Certificates are looked at by doctor.

    \b
    Example:
      SWL_PORT=443 socketwarp config check listener
    """
    flags = {"config": file}
    found = effective(_ENDS[end], flags, os.environ)
    checkRuleFiles(load(_ENDS[end], flags, os.environ))
    if asJson:
        showJson([attrs.asdict(each) for each in found])
    else:
        showTable(("SETTING", "VALUE", "SOURCE"), [(each.name, each.value, each.source) for each in found])
