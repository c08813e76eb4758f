"""Options that commands share, and what is given for them: a server, a time, a target."""

import re
import ssl
from collections.abc import Callable
from functools import wraps
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import click

from ..errors import ConfigurationError
from ._http import Api

DEFAULT_URL = "http://127.0.0.1:8080"
#: Characters of a token, in a file that holds nothing else.
TOKEN_LIMIT = 4096

Command = Callable[..., None]

asJson = click.option("--json", "asJson", is_flag=True, help="Print JSON, for programs.")
dryRun = click.option("--dry-run", "dryRun", is_flag=True, help="Say what would be, and change nothing.")

#: Where the API is, and who calls it: name, variable, what it is. Shells complete what is a path.
_SERVER = (
    ("url", "--url", None, "SOCKETWARP_URL", f"The listener's API; {DEFAULT_URL} by default."),
    (
        "ca",
        "--ca",
        click.Path(),
        "SOCKETWARP_CA",
        "Roots (PEM) that sign the API's certificate; the system's by default.",
    ),
    ("cert", "--cert", click.Path(), "SOCKETWARP_CERT", "Our certificate (PEM), if the API asks for one."),
    ("key", "--key", click.Path(), "SOCKETWARP_KEY", "Its private key (PEM)."),
    (
        "tokenFile",
        "--token-file",
        click.Path(),
        "SOCKETWARP_TOKEN_FILE",
        "File with our token, if the API asks for one.",
    ),
)


def serverOptions(command: Command, variables: bool = True) -> Command:
    """
    The options that name the server. Given before the command's name, they count for the command, too.

    :param variables: whether to look at the environment: done once, before the command's name.
    """
    for name, flag, kind, variable, text in reversed(_SERVER):
        read = variable if variables else None
        option = click.option(flag, name, type=kind, envvar=read, help=f"{text} [{variable}]")
        command = option(command)
    return command


def callsApi(command: Command) -> Command:
    """A command that calls the API, which is its first argument."""

    # Any: arguments as click makes them
    @wraps(command)
    def run(
        *args: Any,
        url: str | None,
        ca: str | None,
        cert: str | None,
        key: str | None,
        tokenFile: str | None,
        **kwargs: Any,
    ) -> None:
        command(makeApi(url or DEFAULT_URL, ca, cert, key, tokenFile), *args, **kwargs)

    return serverOptions(run, variables=False)


def makeApi(url: str, ca: str | None, cert: str | None, key: str | None, tokenFile: str | None) -> Api:
    """
    The API that the options name.

    :raises click.UsageError: they don't go together.
    :raises errors.ConfigurationError: a file can't be used; names it.
    """
    parts = _checkedUrl(url)
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key go together")
    token = None if tokenFile is None else readToken(tokenFile)
    url = url.rstrip("/")
    if parts.scheme == "https":
        return Api(url, _tls(ca, cert, key), token)
    if ca or cert:
        raise click.UsageError(f"--ca, --cert and --key are for TLS: {url!r} needs https://")
    if token is not None and not _isLoopback(parts.hostname or ""):
        click.echo(f"socketwarp: warning: {url} is not encrypted, and others may see the token", err=True)
    return Api(url, token=token)


def _checkedUrl(url: str) -> Any:  # Any: what urlsplit makes has no public name
    try:
        parts = urlsplit(url)
        isUrl = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        isUrl = False
    if not isUrl or parts.query or parts.fragment or parts.username or not re.fullmatch("[!-~]+", url):
        raise click.UsageError(f"--url {url!r}: a URL such as {DEFAULT_URL} or https://host:8443 is needed")
    return parts


def _isLoopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _tls(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigurationError(f"--ca {ca!r} can't be used: {_reason(error)}") from None
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except OSError as error:
            text = f"--cert {cert!r} with --key {key!r} can't be used: {_reason(error)}"
            raise ConfigurationError(text) from None
    return context


def _reason(error: OSError) -> str:
    """The system's words, or OpenSSL's without where in its bindings they come from."""
    return re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$", "", error.strerror or str(error))


def readToken(path: str) -> str:
    """
    The token in a file.

    :raises errors.ConfigurationError: there is none.
    """
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(TOKEN_LIMIT + 1).strip()
    except UnicodeDecodeError:
        token = ""
    except OSError as error:
        raise ConfigurationError(f"--token-file {path!r} can't be read: {error.strerror}") from None
    if not re.fullmatch(f"[!-~]{{1,{TOKEN_LIMIT}}}", token):
        raise ConfigurationError(f"--token-file {path!r}: a token, and nothing else, must be in it")
    return token


#: Units of time, in seconds.
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str | float) -> float:
    """
    A time: ``90``, ``90s``, ``15m``, ``2h``, ``7d``; gives seconds. A default is that already.

    :raises click.BadParameter: it isn't one.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", str(text), re.ASCII)
    if match is None:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 15m, 2h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def address(text: str) -> str:
    """
    An IP address.

    :raises click.BadParameter: it isn't one.
    """
    try:
        return str(ip_address(text))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no address such as 198.51.100.7 or 2001:db8::7") from None


def network(text: str) -> str:
    """
    A network, or an address alone.

    :raises click.BadParameter: it isn't one.
    """
    try:
        return str(ip_network(text))
    except ValueError:
        text = f"{text!r} is no network such as 198.51.100.0/24 or 2001:db8::/32"
        raise click.BadParameter(text) from None


def target(text: str) -> tuple[str, int]:
    """
    A target: ``db.lan:5432``, ``192.0.2.1:22``, ``[2001:db8::1]:22``; gives host and port.

    :raises click.BadParameter: it isn't one.
    """
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare and bare == host) or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{text!r} is no target such as db.lan:5432, 192.0.2.1:22 or [2001:db8::1]:22")
    return bare, int(port)
