"""Wait until a port's target can be reached, with a line about what is still missing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.status import Status

from ..errors import EX_UNAVAILABLE, ConnectorAway, NoSuchSession, TargetDenied
from ._http import Api, Failed, exitFor
from ._models import Port, Probe, understood
from ._show import clean

#: Seconds between two probes; each is a dial at the target.
PAUSE = 1.0
#: Seconds for one probe: the API's own default.
PROBE_SECONDS = 10.0
#: Outcomes of a probe that got through. ``unknown`` is as much as the original's protocol can tell.
REACHED = frozenset({"answered", "closed", "dialled", "unknown"})
#: What waiting may mend, though the call itself failed: no connector, or nobody can dial at the moment.
_AWAY = frozenset({NoSuchSession.code, ConnectorAway.code})


def waitForTarget(api: Api, port: Port, seconds: float) -> None:
    """
    Probe until the port's target is reached.

    :raises Failed: it wasn't in time, or waiting doesn't help.
    """
    deadline = time.monotonic() + seconds
    with _progress() as tell:
        while True:
            reason = _missing(api, port, max(1.0, min(PROBE_SECONDS, deadline - time.monotonic())))
            if not reason:
                return
            tell(f"port {port.port}: {reason}")
            if time.monotonic() + PAUSE >= deadline:
                text = f"port {port.port} is wished for, but nobody got through within {seconds:g} s: {reason}"
                raise Failed(text, EX_UNAVAILABLE)
            time.sleep(PAUSE)


def _missing(api: Api, port: Port, seconds: float) -> str:
    """Why the target can't be reached yet; empty when it was."""
    body = {"uid": port.uid, "host": port.target_host, "port": port.target_port, "seconds": seconds}
    try:
        probe = understood(api.call("POST", "/v1/probe", body, seconds=seconds), Probe)
    except Failed as error:
        if error.code not in _AWAY and error.exitCode != EX_UNAVAILABLE:
            raise
        return str(error)
    if probe.outcome in REACHED:
        return _closed(understood(api.call("GET", f"/v1/ports/{port.port}"), Port))
    reason = f"{probe.reason or 'the target was not reached'} ({probe.outcome})"
    if probe.outcome == TargetDenied.code:
        raise Failed(f"port {port.port} is open, but its connector refuses the target: {reason}", exitFor("forbidden"))
    return reason


def _closed(port: Port) -> str:
    """Why visitors can't come in, though the target is there; empty when they can."""
    return "" if port.state == "open" else f"it is {port.state}" + (f": {port.reason}" if port.reason else "")


class _Progress:
    """Says what is waited for: on a terminal in one line that changes, else in a line for each change."""

    def __init__(self, status: Status | None) -> None:
        self._status = status
        self._told = ""

    def __call__(self, text: str) -> None:
        if self._status is not None:
            self._status.update(f"[default]{clean(text).replace('[', chr(92) + '[')}")
        elif text != self._told:
            click.echo(clean(text), err=True)
        self._told = text


@contextmanager
def _progress() -> Iterator[_Progress]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Progress(None)
        return
    with console.status("waiting for the target") as status:
        yield _Progress(status)
