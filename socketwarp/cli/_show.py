"""Output: JSON for programs; tables for people, of text that can't steer their terminal."""

import json
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ..identity.describe import Description

#: Columns when it is no terminal that reads: nothing is wrapped or cut then.
_WIDE = 4000


def showJson(value: object) -> None:
    """One JSON value, indented; characters beyond ASCII are escaped, and so is what would steer a terminal."""
    click.echo(json.dumps(value, indent=2))


def clean(text: str) -> str:
    """Text in which what isn't printable is spelt out: names and reasons come from strangers, too."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def say(text: str) -> None:
    """A line for people."""
    click.echo(clean(text))


def showTable(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; without names of columns, what comes in pairs. `None` is shown as nothing."""
    table = Table(box=None, show_header=bool(columns), pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = [[_cell(each) for each in row] for row in rows]
    for column in columns or ("",) * max(map(len, shown), default=1):
        table.add_column(column, overflow="fold")
    for row in shown:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _cell(value: object) -> Text:
    return Text("" if value is None else clean(str(value)))


def certificateFields(described: Description) -> dict[str, object]:
    """A certificate for programs, with the API's kind of names; times as RFC 3339 has them."""
    return {
        "subject": described.subject,
        "issuer": described.issuer,
        "serial": described.serial,
        "is_authority": described.isAuthority,
        "names": described.names,
        "usages": described.usages,
        "not_before": described.notBefore.isoformat(),
        "not_after": described.notAfter.isoformat(),
        "sha256": described.fingerprint,
    }


def showTime(text: str) -> str:
    """A time of the API's (RFC 3339, UTC) for people, to the second."""
    return f"{text[:10]} {text[11:19]}Z"


def showBytes(count: int) -> str:
    """A number of bytes for people."""
    return decimal(count)


def showSeconds(seconds: float | None) -> str | None:
    """A time that passed, for people."""
    if seconds is None:
        return None
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
