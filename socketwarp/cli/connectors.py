"""``socketwarp connectors`` and ``connections``: who is here, and sending them away."""

from urllib.parse import quote

import click

from ._http import Api, withQuery
from ._models import Connection, Connections, Connector, Dismissed, understood
from ._options import asJson, callsApi, dryRun, duration
from ._show import say, showBytes, showJson, showSeconds, showTable, showTime


@click.command("connectors", short_help="Who is connected; send one away.")
@click.argument("uid", required=False)
@click.option("--disconnect", is_flag=True, help="End the sessions of UID; it comes back at once, unless --deny.")
@click.option(
    "--deny",
    type=duration,
    help="With --disconnect: don't let it in again for that time, whatever is restarted; 0 lets it in.",
)
@dryRun
@asJson
@callsApi
def connectors(api: Api, uid: str | None, disconnect: bool, deny: float | None, dryRun: bool, asJson: bool) -> None:
    """
    List the connectors that are here, and those that are denied; or show the one of UID; or send it away.

    \b
    Examples:
      socketwarp connectors
      socketwarp connectors office --disconnect --deny 1h
      socketwarp connectors office --disconnect --deny 0
    """
    if (deny is not None or dryRun) and not disconnect:
        raise click.UsageError("--deny and --dry-run go with --disconnect")
    if disconnect:
        if uid is None:
            raise click.UsageError("--disconnect needs a UID")
        _disconnect(api, uid, deny, dryRun, asJson)
        return
    answer = api.call("GET", "/v1/connectors" if uid is None else _path(uid))
    if asJson:
        showJson(answer)
        return
    if uid is not None:
        showTable((), _details(understood(answer, Connector)))
        return
    columns = ("UID", "PORTS", "PEER", "CARRIER", "SINCE", "RTT", "VISITORS", "IN", "OUT")
    showTable(columns, _rows(understood(answer, list[Connector])))


def _path(uid: str) -> str:
    return f"/v1/connectors/{quote(uid, safe='')}"


def _rows(found: list[Connector]) -> list[tuple[object, ...]]:
    denied = [
        (each.uid, " ".join(map(str, each.ports)), f"denied until {showTime(each.denied_until)}", *[None] * 6)
        for each in found
        if each.denied_until is not None
    ]
    return denied + [
        (
            connector.uid,
            " ".join(map(str, connector.ports)),
            each.peer,
            each.carrier,
            showTime(each.since),
            showSeconds(each.rtt),
            each.connections,
            showBytes(each.bytes_in),
            showBytes(each.bytes_out),
        )
        for connector in found
        for each in connector.sessions
    ]


def _details(connector: Connector) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [("uid", connector.uid), ("ports", " ".join(map(str, connector.ports)))]
    if connector.denied_until is not None:
        rows.append(("denied until", showTime(connector.denied_until)))
    for each in connector.sessions:
        rows += [
            ("session", f"{each.session}, leaving" if each.leaving else each.session),
            ("  peer", each.peer),
            ("  protocol", f"{each.protocol} over {each.carrier}"),
            ("  since", showTime(each.since)),
            ("  certificate until", showTime(each.not_after)),
            ("  round trip", showSeconds(each.rtt)),
            ("  visitors", each.connections),
            ("  bytes in, out", f"{each.bytes_in}, {each.bytes_out}"),
        ]
    return rows


def _disconnect(api: Api, uid: str, deny: float | None, dryRun: bool, asJson: bool) -> None:
    answer = api.call("DELETE", withQuery(_path(uid), deny=deny, dry_run=1 if dryRun else None))
    if asJson:
        showJson(answer)
        return
    gone = understood(answer, Dismissed)
    told = f"; not let in again for {gone.denied_seconds:g} s" if gone.denied_seconds else ""
    if deny == 0:
        told = "; it would be let in again" if dryRun else "; it is let in again"
    say(f"{gone.uid}: {gone.sessions} sessions {'would be ' if dryRun else ''}ended{told}")


@click.command("connections", short_help="Who visits; end a connection.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of that port only.")
@click.option("--uid", help="Of that connector only.")
@click.option("--limit", type=click.IntRange(1, 1000), help="Show so many at most.")
@click.option("--end", metavar="ID", help="End that connection (with RST), instead of listing.")
@dryRun
@asJson
@callsApi
def connections(
    api: Api, port: int | None, uid: str | None, limit: int | None, end: str | None, dryRun: bool, asJson: bool
) -> None:
    """
    List visitors' connections, or end one. Bytes in are those that came from the visitor.

    \b
    Examples:
      socketwarp connections --port 2222
      socketwarp connections --end 17-3
    """
    if end is None and dryRun:
        raise click.UsageError("--dry-run goes with --end")
    if end is not None:
        if port is not None or uid is not None or limit is not None:
            raise click.UsageError("--end doesn't go with --port, --uid and --limit")
        _end(api, end, dryRun, asJson)
        return
    answer = api.call("GET", withQuery("/v1/connections", port=port, uid=uid, limit=limit))
    if asJson:
        showJson(answer)
        return
    found = understood(answer, Connections)
    columns = ("ID", "PORT", "UID", "VISITOR", "TARGET", "SINCE", "IN", "OUT")
    showTable(columns, [_row(each) for each in found.connections])
    if len(found.connections) < found.total:
        say(f"{len(found.connections)} of {found.total}")


def _row(each: Connection) -> tuple[object, ...]:
    carried = showBytes(each.bytes_in), showBytes(each.bytes_out)
    return each.id, each.port, each.uid, each.peer, each.target, showTime(each.since), *carried


def _end(api: Api, name: str, dryRun: bool, asJson: bool) -> None:
    path = f"/v1/connections/{quote(name, safe='')}"
    answer = api.call("DELETE", withQuery(path, dry_run=1 if dryRun else None))
    if asJson:
        showJson(answer)
        return
    ended = understood(answer, Connection)
    say(f"connection {ended.id} of {ended.peer} to port {ended.port} {'would be ' if dryRun else ''}ended")
