"""``socketwarp status``: the listener at a glance."""

from collections import Counter

import click

from ..errors import EX_UNAVAILABLE, AccessDenied
from ._http import Api, Failed
from ._models import Connections, Connector, Port, Ready, understood
from ._options import asJson, callsApi
from ._show import showJson, showTable


@click.command("status")
@asJson
@callsApi
@click.pass_context
def status(context: click.Context, api: Api, asJson: bool) -> None:
    """
    The listener at a glance: is it ready, what is open, who is here.

    Ends with 0 if every wished port is open to visitors, else with 69.
    """
    ready = understood(api.call("GET", "/ready"), Ready)
    ports = understood(api.call("GET", "/v1/ports"), list[Port])
    visitors = understood(api.call("GET", "/v1/connections?limit=1"), Connections)
    found = {
        "url": api.url,
        "version": api.call("GET", "/v1/openapi.json").get("info", {}).get("version"),
        "ready": ready.ready,
        "reasons": ready.reasons,
        "ports": dict(Counter(each.state for each in ports)),
        "connectors": _connectors(api),
        "connections": visitors.total,
    }
    if asJson:
        showJson(found)
    else:
        states = ", ".join(f"{count} {state}" for state, count in found["ports"].items()) or "none"
        showTable((), _rows(found | {"ports": states}))
    context.exit(0 if ready.ready else EX_UNAVAILABLE)


def _connectors(api: Api) -> list[str] | None:
    """Their uids; `None`: the caller has nothing to do with connectors."""
    try:
        return [each.uid for each in understood(api.call("GET", "/v1/connectors"), list[Connector])]
    except Failed as error:
        if error.code != AccessDenied.code:
            raise
        return None


def _rows(found: dict[str, object]) -> list[tuple[object, ...]]:
    shown = {name: value for name, value in found.items() if name not in ("ready", "reasons", "connectors")}
    reasons, uids = found["reasons"], found["connectors"]
    assert isinstance(reasons, list)
    rows: list[tuple[object, ...]] = [("ready", "yes" if found["ready"] else "no")]
    rows += [("", reason) for reason in reasons]
    if isinstance(uids, list):
        rows.append(("connectors", ", ".join(uids) or "none"))
    return [("listener", f"{shown.pop('url')}, version {shown.pop('version')}"), *rows, *shown.items()]
