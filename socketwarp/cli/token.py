"""``socketwarp token``: make a token for the API."""

import json
import os
import re
from hashlib import sha256
from secrets import token_urlsafe

import click

from ..errors import ConfigurationError
from ..identity.files import Output, writeAll
from ..settings import parsePortRanges
from ._options import asJson
from ._show import showJson

#: Bytes of chance in a token: what can't be guessed needn't be slow to hash.
SIZE = 32


@click.command("token", short_help="Make a token for the API.")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["read", "operate"]), default="operate", show_default=True, help="What it may."
)
@click.option("--port", "ports", multiple=True, metavar="RANGE", help="Only these ports, as 18000-18099; repeatable.")
@click.option("--uid", "uids", multiple=True, metavar="PATTERN", help="Only these uids, as lab-*; repeatable.")
@click.option("--out", type=click.Path(dir_okay=False), help="Write the token to a new file, instead of showing it.")
@asJson
def token(name: str, role: str, ports: tuple[str, ...], uids: tuple[str, ...], out: str | None, asJson: bool) -> None:
    """
    Make a token for NAME, and the lines for the listener's APIS_TOKENS_FILE.

    The lines go to the output, the token to the file, or else to the terminal (standard error): it is shown once, and
    the listener knows only its digest. Nothing is asked of a listener.

    \b
    Example:
      socketwarp token ci --role read --out ci.token >> tokens.toml
      socketwarp list --token-file ci.token
    """
    for given in (name, *uids):
        if not given or not given.isprintable():
            raise click.UsageError(f"{given!r}: a printable text is needed")
    for given in ports:
        _checkPorts(given)
    if out is not None and os.path.lexists(out):
        raise ConfigurationError(f"--out {out!r} exists already: name another file, or move it away")
    made = token_urlsafe(SIZE)
    record = {"name": name, "sha256": sha256(made.encode()).hexdigest(), "role": role, "ports": ports, "uids": uids}
    lines = _toml({key: value for key, value in record.items() if value})
    if out is not None:
        writeAll([Output(out, f"{made}\n".encode(), 0o600)])
    if asJson:
        showJson(record | {"toml": lines} | ({"token": made} if out is None else {"token_file": out}))
        return
    click.echo(lines, nl=False)
    click.echo(f"# token, shown this once: {made}" if out is None else f"# token written to {out}", err=True)


def _checkPorts(text: str) -> None:
    try:
        (_,) = parsePortRanges(text)
    except ValueError:
        raise click.UsageError(f"--port {text!r}: a port, or a range such as 18000-18099, is needed") from None


def _toml(record: dict[str, object]) -> str:
    """A JSON string, or list of strings, is TOML's as well, if it has no halves of characters."""
    text = "[[token]]\n" + "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in record.items()
    )
    if re.search("[\ud800-\udfff\x7f]", text):
        raise ConfigurationError("a name of a token, or of a uid, isn't text")
    return text + "\n"
