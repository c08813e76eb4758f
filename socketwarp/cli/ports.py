"""``socketwarp open``, ``close`` and ``list``: the listener's ports."""

import time
from datetime import UTC, datetime
from typing import Any

import attrs
import click

from ..errors import NoSuchPort, PreconditionFailed
from ._http import Api, Failed, withQuery
from ._models import Closed, Port, PortLimits, understood
from ._options import address, asJson, callsApi, dryRun, duration, network, target
from ._show import say, showJson, showTable
from ._waiting import waitForTarget

_port = click.IntRange(1, 65535)
#: Where a port is bound unless it is said; see `listener.wishes.PortSpec`.
EVERY_ADDRESS = "0.0.0.0"


@click.command("open", short_help="Open a port, or change it.")
@click.argument("port", type=click.IntRange(0, 65535))
@click.argument("uid")
@click.argument("target", type=target, metavar="HOST:PORT")
@click.option("--bind", type=address, metavar="ADDRESS", help="Where visitors come in; every IPv4 address by default.")
@click.option(
    "--source",
    "sources",
    type=network,
    multiple=True,
    metavar="NETWORK",
    help="Let in visitors from there; repeatable.",
)
@click.option("--for", "lifetime", type=duration, help="Close the port after that time.")
@click.option("--total", type=click.IntRange(1), help="Close it after so many visitors.")
@click.option("--at-once", "atOnce", type=click.IntRange(1), help="Let in so many visitors at a time.")
@click.option("--idle", type=duration, help="End connections that are silent for so long.")
@click.option("--proxy-protocol", "proxyProtocol", type=click.Choice(["1", "2"]), help="Tell the target who visits.")
@click.option("--new", "isNew", is_flag=True, help="Fail if the port is there already, instead of changing it.")
@click.option("--replace", is_flag=True, help="Of a port that is there, drop what isn't given again.")
@click.option("--wait", is_flag=True, help="Wait until the target can be reached through the port.")
@click.option("--wait-time", "waitTime", type=duration, default=60, help="How long to wait; 60 s unless given.")
@dryRun
@asJson
@callsApi
def openPort(
    api: Api,
    port: int,
    uid: str,
    target: tuple[str, int],
    bind: str | None,
    sources: tuple[str, ...],
    lifetime: float | None,
    total: int | None,
    atOnce: int | None,
    idle: float | None,
    proxyProtocol: str | None,
    isNew: bool,
    replace: bool,
    wait: bool,
    waitTime: float,
    dryRun: bool,
    asJson: bool,
) -> None:
    """
    Open PORT (0: any free one) to visitors, whom the connector UID leads to HOST:PORT.

    A port that is there already is changed; the same again changes nothing. Its address, limits and options stay if
    they aren't given again, and are named; --replace drops them. With --wait, the exit status is 69 if the
    target can't be reached in time; the port stays open.

    \b
    Example:
      socketwarp open 2222 office 127.0.0.1:22 --source 198.51.100.0/24 --for 8h --wait
    """
    if wait and dryRun:
        raise click.UsageError("--wait and --dry-run don't go together")
    expires = None if lifetime is None else time.time() + lifetime
    limits = {"expires": expires, "total": total, "at_once": atOnce, "idle_seconds": idle, "sources": list(sources)}
    given = {
        "limits": _given(limits),
        "options": _given({"proxy_protocol": None if proxyProtocol is None else int(proxyProtocol)}),
    } | _given({"bind_address": bind})
    there = None if isNew or replace or not port else _find(api, port)
    wish, kept = (given, "") if there is None else _keeping(there, given)
    body = {"uid": uid, "target_host": target[0], "target_port": target[1]} | wish
    conditions = {"If-None-Match": "*"} if isNew else {} if there is None else {"If-Match": there["etag"]}
    path = withQuery(f"/v1/ports/{port}", dry_run=1 if dryRun else None)
    try:
        opened = api.call("PUT", path, body, headers=conditions)
    except Failed as error:
        if error.code != PreconditionFailed.code:
            raise
        text = "is there already" if isNew else "was changed by somebody else meanwhile: look at it, and try again"
        raise Failed(f"port {port} {text} ({error.code})", error.exitCode, error.code) from None
    if dryRun:
        _show(opened, asJson, f"port {port} would be open for {uid} to {_target(target)}{kept}")
        return
    found = understood(opened, Port)
    if wait:
        waitForTarget(api, found, waitTime)
        opened = api.call("GET", f"/v1/ports/{found.port}")
        found = understood(opened, Port)
    _show(opened, asJson, f"port {found.port} is {found.state} for {uid} to {_target(target)}{kept}")


def _given(values: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    return {name: value for name, value in values.items() if value not in (None, [])}


def _find(api: Api, port: int) -> Any:  # Any: JSON
    """The port as it is; `None` if it isn't there."""
    try:
        return api.call("GET", f"/v1/ports/{port}")
    except Failed as error:
        if error.code != NoSuchPort.code:
            raise
        return None


def _keeping(there: Any, given: dict[str, Any]) -> tuple[dict[str, Any], str]:  # Any: JSON
    """What is given, with what a port has and isn't given again; and that in words."""
    limits, options = _given(there["limits"]), _given(there["options"])
    wish = {
        "bind_address": there["bind_address"],
        **given,
        "limits": limits | given["limits"],
        "options": options | given["options"],
    }
    kept = {name: value for name, value in limits.items() if name not in given["limits"]}
    words = [showLimits(understood(kept, PortLimits), there["used"])]
    words += _showOptions({name: value for name, value in options.items() if name not in given["options"]})
    if "bind_address" not in given and there["bind_address"] != EVERY_ADDRESS:
        words.append(f"bound to {there['bind_address']}")
    told = ", ".join(filter(None, words))
    return wish, f"; as before: {told}" if told else ""


@click.command("close", short_help="Close a port.")
@click.argument("port", type=_port)
@click.option("--drain", type=duration, help="Give visitors that time to finish, and wait for them.")
@dryRun
@asJson
@callsApi
def closePort(api: Api, port: int, drain: float | None, dryRun: bool, asJson: bool) -> None:
    """
    Close PORT for good, and end its visitors' connections.

    \b
    Example:
      socketwarp close 2222 --drain 5m
    """
    path = withQuery(f"/v1/ports/{port}", drain=drain, dry_run=1 if dryRun else None)
    answer = api.call("DELETE", path, seconds=drain or 0.0)
    closed = understood(answer, Closed)
    told = f"would be closed; {closed.connections} visitors are there" if dryRun else f"closed; {closed.ended} ended"
    _show(answer, asJson, f"port {port} {told}")


@click.command("list", short_help="List the ports, or show one.")
@click.argument("port", type=_port, required=False)
@asJson
@callsApi
def listPorts(api: Api, port: int | None, asJson: bool) -> None:
    """
    List the ports, or show one PORT.

    The state is open, parked (no connector of that uid is here), unbound (the listener tries again) or draining.

    \b
    Example:
      socketwarp list 2222
    """
    answer = api.call("GET", "/v1/ports" if port is None else f"/v1/ports/{port}")
    if asJson:
        showJson(answer)
        return
    found = understood(answer if port is None else [answer], list[Port])
    columns = ("PORT", "UID", "TARGET", "STATE", "VISITORS", "ADDRESS", "LIMITS")
    showTable(columns, [_row(each) for each in found])


def _row(port: Port) -> tuple[object, ...]:
    state = f"{port.state}: {port.reason}" if port.reason else port.state
    target = _target((port.target_host.strip("[]"), port.target_port))
    words = filter(None, [showLimits(port.limits, port.used), *_showOptions(attrs.asdict(port.options))])
    return port.port, port.uid, target, state, port.connections, port.bind_address, ", ".join(words)


def showLimits(limits: PortLimits, used: int) -> str:
    """A port's limits in a few words."""
    words = []
    if limits.expires is not None:
        words.append(f"until {datetime.fromtimestamp(limits.expires, UTC):%Y-%m-%d %H:%M:%S}Z")
    if limits.total is not None:
        words.append(f"{used} of {limits.total} used")
    if limits.at_once is not None:
        words.append(f"{limits.at_once} at once")
    if limits.idle_seconds is not None:
        words.append(f"idle {limits.idle_seconds:g} s")
    if limits.sources:
        words.append(f"from {' '.join(limits.sources)}")
    return ", ".join(words)


def _showOptions(options: dict[str, Any]) -> list[str]:  # Any: JSON
    version = options.get("proxy_protocol")
    return [f"PROXY protocol {version}"] if version else []


def _target(target: tuple[str, int]) -> str:
    host, port = target
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _show(answer: Any, asJson: bool, text: str) -> None:  # Any: JSON
    if asJson:
        showJson(answer)
    else:
        say(text)
