"""``socketwarp gencert``: make keys and certificates, and show what is in one."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ..identity.authority import (
    AUTHORITY_DAYS,
    LEAF_DAYS,
    MAX_COMMON_NAME,
    KeyType,
    Made,
    isHostName,
    loadAuthority,
    makeAuthority,
    makeLeaf,
    makeSelfSigned,
    ownHosts,
)
from ..identity.describe import Description, describe
from ..identity.files import certificateFile, checkFree, keyFile, writeAll
from ..identity.pem import SettingFile, readCertificates
from ..interfaces import Role
from ._options import asJson
from ._show import certificateFields, showJson

_Function = TypeVar("_Function", bound=Callable[..., Any])  # Any: as click declares what it decorates

#: Paths of a certificate and its key, and what is in it.
_Written = tuple[str, str, Description]

_keyType = click.option(
    "--key-type", "keyType", type=click.Choice(["rsa", "ec"]), default="rsa", show_default=True, help="Kind of key."
)
_force = click.option("--force", is_flag=True, help="Replace files that exist.")
_out = click.option(
    "--out", default=".", show_default=True, type=click.Path(file_okay=False), help="Directory for the files."
)


def _days(default: int) -> Callable[[_Function], _Function]:
    return click.option("--days", default=default, show_default=True, type=click.IntRange(1, 36500), help="Valid for.")


@click.group(invoke_without_command=True)
@click.option("--serverCert", "serverCert", type=click.Path(), help="Write a listener's self-signed certificate.")
@click.option("--serverKey", "serverKey", type=click.Path(), help="Write its key.")
@click.option("--clientCert", "clientCert", type=click.Path(), help="Write a connector's self-signed certificate.")
@click.option("--clientKey", "clientKey", type=click.Path(), help="Write its key.")
@click.option("--cn", help="Common name: the connector's uid; the listener's host name by default.")
@click.option("--host", "hosts", multiple=True, help="Another name or address; may be given several times.")
@_days(LEAF_DAYS)
@_keyType
@_force
@asJson
@click.pass_context
def gencert(
    context: click.Context,
    serverCert: str | None,
    serverKey: str | None,
    clientCert: str | None,
    clientKey: str | None,
    cn: str | None,
    hosts: tuple[str, ...],
    days: int,
    keyType: KeyType,
    force: bool,
    asJson: bool,
) -> None:
    """
    Make certificates. With --serverCert or --clientCert: a self-signed one, which the other end takes as its CA file.

    \b
    Example:
      socketwarp gencert --clientCert client.crt --clientKey client.key --cn office-1
    """
    pairs: list[tuple[Role, str, str]] = [
        *_pair("server", serverCert, serverKey),
        *_pair("client", clientCert, clientKey),
    ]
    if context.invoked_subcommand is not None:
        if pairs:
            raise click.UsageError(f"--serverCert and --clientCert don't go with {context.invoked_subcommand}")
        return
    if not pairs:
        raise click.UsageError("say what to make: ca, listener, connector, or --serverCert and --serverKey; see --help")
    if cn is None and clientCert is not None:
        raise click.UsageError("--clientCert needs --cn: the connector's uid")
    paths = [path for _, *pair in pairs for path in pair]
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise click.UsageError("each certificate and each key needs a file of its own")
    checkFree(paths, force)
    names = list(dict.fromkeys([*hosts, *ownHosts()]))
    written = []
    for role, certPath, keyPath in pairs:
        # A listener is looked for by its name in the alternative names alone.
        given = [cn] if role == "server" and cn is not None and isHostName(cn) else []
        made = makeSelfSigned(role, cn or socket.gethostname(), list(dict.fromkeys([*given, *names])), keyType, days)
        written.append(_write(made, certPath, keyPath, force))
    _tell(written, asJson)


def _pair(role: Role, cert: str | None, key: str | None) -> list[tuple[Role, str, str]]:
    if cert is None and key is None:
        return []
    if cert is None or key is None:
        raise click.UsageError(f"--{role}Cert and --{role}Key go together")
    return [(role, cert, key)]


@gencert.command(short_help="Make an authority.")
@click.option("--name", default="socketwarp CA", show_default=True, help="Its common name.")
@_days(AUTHORITY_DAYS)
@_keyType
@_out
@_force
@asJson
def ca(name: str, days: int, keyType: KeyType, out: str, force: bool, asJson: bool) -> None:
    """
    Make an authority: ca.crt for both ends, ca.key to be kept away from them.

    \b
    Example:
      socketwarp gencert ca --name "my tunnels" --key-type ec
    """
    certPath, keyPath = os.path.join(out, "ca.crt"), os.path.join(out, "ca.key")
    checkFree([certPath, keyPath], force)
    _tell([_write(makeAuthority(name, keyType, days), certPath, keyPath, force)], asJson)


@gencert.command(short_help="Make a listener's certificate.")
@click.option("--host", "hosts", multiple=True, required=True, help="Name or address; may be given several times.")
@_days(LEAF_DAYS)
@_keyType
@_out
@_force
@asJson
def listener(hosts: tuple[str, ...], days: int, keyType: KeyType, out: str, force: bool, asJson: bool) -> None:
    """
    Make a listener's server.crt and server.key, signed by the directory's ca.crt and ca.key.

    \b
    Example:
      socketwarp gencert listener --host tunnel.example.net --key-type ec
    """
    _tell([_issue(out, "server", "server", _commonName(hosts), hosts, keyType, days, force)], asJson)


@gencert.command(short_help="Make a connector's certificate.")
@click.option("--cn", required=True, help="The connector's uid.")
@_days(LEAF_DAYS)
@_keyType
@_out
@_force
@asJson
def connector(cn: str, days: int, keyType: KeyType, out: str, force: bool, asJson: bool) -> None:
    """
    Make a connector's client.crt and client.key, signed by the directory's ca.crt and ca.key.

    \b
    Example:
      socketwarp gencert connector --cn office-1 --key-type ec
    """
    _tell([_issue(out, "client", "client", cn, (), keyType, days, force)], asJson)


def _commonName(hosts: Sequence[str]) -> str:
    """The first name that fits; nobody looks for it there."""
    return next((each for each in hosts if len(each) <= MAX_COMMON_NAME), "listener")


def _issue(
    out: str, file: str, role: Role, cn: str, hosts: Sequence[str], keyType: KeyType, days: int, force: bool
) -> _Written:
    certPath, keyPath = os.path.join(out, f"{file}.crt"), os.path.join(out, f"{file}.key")
    checkFree([certPath, keyPath], force)
    authority = loadAuthority(
        SettingFile("authority's certificate", os.path.join(out, "ca.crt")),
        SettingFile("authority's key", os.path.join(out, "ca.key")),
    )
    return _write(makeLeaf(authority, role, cn, hosts, keyType, days), certPath, keyPath, force)


def _write(made: Made, certPath: str, keyPath: str, force: bool) -> _Written:
    writeAll([keyFile(keyPath, made.key), certificateFile(certPath, [made.certificate])], force)
    return certPath, keyPath, describe(made.certificate)


def _tell(written: Sequence[_Written], asJson: bool) -> None:
    if asJson:
        showJson([{"cert": cert, "key": key, **certificateFields(made)} for cert, key, made in written])
        return
    for cert, key, made in written:
        click.echo(f"{cert} and {key}: {made}")


@gencert.command()
@click.argument("file", type=click.Path())
@asJson
def show(file: str, asJson: bool) -> None:
    """
    Print what matters of each certificate in FILE.

    \b
    Example:
      socketwarp gencert show client.crt
    """
    found = [describe(each) for each in readCertificates(SettingFile("file", file))]
    if asJson:
        showJson([certificateFields(each) for each in found])
        return
    for number, each in enumerate(found, start=1):
        click.echo(f"certificate {number}")
        for label, value in each.lines():
            click.echo(f"  {label:<12} {value}")
