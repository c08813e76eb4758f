"""``socketwarp status``: the listener at a glance."""

from collections import Counter
from typing import Any

import click

from ..errors import EX_UNAVAILABLE, AccessDenied
from ._http import Api, Failed
from ._models import Connections, Connector, Port, Ready, understood
from ._options import asJson, callsApi
from ._show import showJson, showTable


@click.command("status", short_help="The listener at a glance.")
@asJson
@callsApi
@click.pass_context
def status(context: click.Context, api: Api, asJson: bool) -> None:
    """
    The listener at a glance: is it ready, what is open, who is here.

    Ends with 0 if every wished port is open to visitors, else with 69.

    \b
    Example:
      socketwarp status --json
    """
    ready = understood(api.call("GET", "/ready"), Ready)
    ports = understood(api.call("GET", "/v1/ports"), list[Port])
    here = _connectors(api)
    visitors = understood(api.call("GET", "/v1/connections?limit=1"), Connections)
    found = {
        "url": api.url,
        "version": api.call("GET", "/v1/openapi.json").get("info", {}).get("version"),
        "ready": ready.ready,
        "reasons": ready.reasons,
        "ports": dict(Counter(each.state for each in ports)),
        "connectors": None if here is None else [each.uid for each in here if each.sessions],
        "sessions": None if here is None else dict(Counter(one.carrier for each in here for one in each.sessions)),
        "connections": visitors.total,
    }
    if asJson:
        showJson(found)
    else:
        showTable((), _rows(found))
    context.exit(0 if ready.ready else EX_UNAVAILABLE)


def _connectors(api: Api) -> list[Connector] | None:
    """Who is here; `None`: the caller has nothing to do with connectors."""
    try:
        return understood(api.call("GET", "/v1/connectors"), list[Connector])
    except Failed as error:
        if error.code != AccessDenied.code:
            raise
        return None


def _rows(found: dict[str, Any]) -> list[tuple[object, ...]]:  # Any: each has a type of its own
    uids, sessions = found["connectors"], found["sessions"]
    rows: list[tuple[object, ...]] = [
        ("listener", f"{found['url']}, version {found['version']}"),
        ("ready", "yes" if found["ready"] else "no"),
        *(("", reason) for reason in found["reasons"]),
    ]
    if uids is not None:
        rows.append(("connectors", ", ".join(uids) or "none"))
        rows.append(("sessions", _counted(sessions, "over ")))
    return [*rows, ("ports", _counted(found["ports"])), ("connections", found["connections"])]


def _counted(counts: dict[str, int], prefix: str = "") -> str:
    return ", ".join(f"{count} {prefix}{kind}" for kind, count in counts.items()) or "none"
