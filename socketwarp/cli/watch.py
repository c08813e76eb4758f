"""``socketwarp watch``: the listener's events as they happen, also across losses of the connection."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import attrs
import click

from ..errors import EX_UNAVAILABLE
from ._http import Api, Failed, withQuery
from ._options import asJson, callsApi
from ._show import clean

#: Seconds of silence after which the connection is taken for dead: the listener says something every 10 s.
SILENCE = 30.0
#: Seconds before trying again: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


@attrs.define
class Follower:
    """
    Reads server-sent events (the HTML standard, §9.2) as far as the API uses them, from one connection.

    :ivar last: the id of the last event that came whole, from where to go on.
    """

    last: str | None = None
    _next: str | None = None
    _data: list[str] = attrs.field(factory=list)

    def take(self, line: str) -> Any | None:
        """
        A line.

        :returns: an event's data (Any: JSON) when it is complete.
        """
        if not line:
            data, self._data = "\n".join(self._data), []
            self.last = self._next or self.last
            with suppress(ValueError):  # without data, or none that we understand
                return json.loads(data)
            return None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            self._next = value
        elif field == "data":
            self._data.append(value)
        return None


@click.command("watch", short_help="Follow what happens.")
@click.option("--since", metavar="ID", help="Begin behind the event with that id; 0: with the oldest that is known.")
@asJson
@callsApi
def watch(api: Api, since: str | None, asJson: bool) -> None:
    """
    Follow what happens: connectors, ports, visitors, changes. Ends with Ctrl-C.

    A lost connection is made again, and what happened meanwhile is told. With --json, each line is an event.

    \b
    Examples:
      socketwarp watch --since 0
      socketwarp watch --json | jq 'select(.event == "connector.lost")'
    """
    with suppress(KeyboardInterrupt):
        for event in follow(api, since):
            click.echo(json.dumps(event) if asJson else sentence(event))


def follow(api: Api, since: str | None) -> Iterator[Any]:  # Any: JSON
    """
    Events, for ever.

    :raises Failed: the first connection couldn't be made, or the listener doesn't want us.
    """
    last: str | None = None
    pause, wasThere = FIRST_PAUSE, False
    while True:
        follower = Follower(last)
        headers = {} if last is None else {"Last-Event-ID": last}
        path = withQuery("/v1/events", since=since if last is None else None)
        try:
            for line in api.lines(path, SILENCE, headers):
                pause, wasThere = FIRST_PAUSE, True
                event = follower.take(line)
                last = follower.last
                if event is not None:
                    yield event
        except Failed as error:
            if not wasThere or error.exitCode != EX_UNAVAILABLE:
                raise
            click.echo(f"socketwarp: {clean(str(error))}; trying again in {pause:g} s", err=True)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def sentence(event: Any) -> str:  # Any: JSON
    """An event in one line: when, what, and its fields."""
    fields = dict(event) if isinstance(event, dict) else {"event": event}
    seconds = fields.pop("time", None)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if isinstance(seconds, int | float) else "-" * 19
    name = fields.pop("event", "events.missed")
    told = " ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(_given(value))}"
        for key, value in fields.items()
        if value is not None
    )
    return clean(f"{when} {name:<21} {told}")


def _given(value: Any) -> Any:  # Any: JSON
    """An object without what is left out in it, which would fill the line."""
    if not isinstance(value, dict):
        return value
    held = {key: _given(each) for key, each in value.items()}
    return {key: each for key, each in held.items() if each not in (None, {}, [])}
