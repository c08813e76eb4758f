"""``socketwarp probe`` and ``explain``: does it work, and if not, who says no."""

import click

from ..errors import EX_NOPERM
from ._http import Api, exitFor
from ._models import Explanation, Port, Probe, Step, understood
from ._options import address, asJson, callsApi, duration, target
from ._show import showJson, showSeconds, showTable
from ._waiting import REACHED


@click.command("probe", short_help="Does a target answer, and how fast?")
@click.argument("what", metavar="UID|PORT")
@click.argument("target", type=target, metavar="[HOST:PORT]", required=False)
@click.option("--send", default="", help="Text to send to the target, and wait for its answer.")
@click.option("--time", "seconds", type=duration, default=10, help="For all steps together; 10 s unless given.")
@asJson
@callsApi
@click.pass_context
def probe(
    context: click.Context,
    api: Api,
    what: str,
    target: tuple[str, int] | None,
    send: str,
    seconds: float,
    asJson: bool,
) -> None:
    r"""
    Have the connector UID dial HOST:PORT, or the one of an open PORT its target, and time each step.

    Ends with 0 if the target was reached. With --send, it waits until the target answers, or --time is over.

    \b
    Examples:
      socketwarp probe 2222
      socketwarp probe office 192.0.2.7:80 --send $'GET / HTTP/1.0\r\n\r\n'
    """
    uid, (host, port) = (what, target) if target is not None else _targetOf(api, what)
    body = {"uid": uid, "host": host, "port": port, "send": send, "seconds": seconds}
    answer = api.call("POST", "/v1/probe", body, seconds=seconds)
    probed = understood(answer, Probe)
    if asJson:
        showJson(answer)
    else:
        _show(probed)
    context.exit(0 if probed.outcome in REACHED else exitFor(probed.outcome))


def _targetOf(api: Api, port: str) -> tuple[str, tuple[str, int]]:
    if not port.isdecimal():
        raise click.UsageError("a UID needs a HOST:PORT")
    found = understood(api.call("GET", f"/v1/ports/{int(port)}"), Port)
    return found.uid, (found.target_host, found.target_port)


def _show(probed: Probe) -> None:
    rows = (
        ("outcome", probed.outcome),
        ("reason", probed.reason),
        ("dialled", probed.dialled),
        ("session", f"{probed.session}, {probed.protocol}"),
        ("stream after", showSeconds(probed.stream_seconds)),
        ("dialled after" if probed.dialled else "answered after", showSeconds(probed.dial_seconds)),
        ("  of it, resolving", showSeconds(probed.resolve_seconds)),
        ("  and connecting", showSeconds(probed.connect_seconds)),
        ("byte after", showSeconds(probed.byte_seconds)),
        ("received", probed.received),
    )
    showTable((), [row for row in rows if row[1]])


@click.command("explain", short_help="Would a visitor get through, and who says no?")
@click.argument("port", type=click.IntRange(1, 65535))
@click.argument("source", type=address, metavar="ADDRESS")
@click.option("--dial", is_flag=True, help="Have the connector dial the target, and say what its own rules say.")
@asJson
@callsApi
@click.pass_context
def explain(context: click.Context, api: Api, port: int, source: str, dial: bool, asJson: bool) -> None:
    """
    Would a visitor from ADDRESS get through PORT, and which rule on which end decides?

    Ends with 77 if something refuses the visitor.

    \b
    Example:
      socketwarp explain 2222 198.51.100.7 --dial
    """
    answer = api.call("POST", "/v1/explain", {"port": port, "source": source, "dial": dial}, seconds=10.0)
    found = understood(answer, Explanation)
    if asJson:
        showJson(answer)
    else:
        showTable(("", "END", "QUESTION", "RULE"), [_row(each) for each in found.steps])
        showTable((), [(_VERDICTS[found.allowed], f"port {port} from {source} to {found.target}")])
    context.exit(EX_NOPERM if found.allowed is False else 0)


_WORDS = {True: "yes", False: "NO", None: "?"}
_VERDICTS = {True: "allowed:", False: "refused:", None: "not refused here:"}


def _row(step: Step) -> tuple[object, ...]:
    return _WORDS[step.allowed], step.end, step.question, step.rule
