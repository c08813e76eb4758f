"""``socketwarp enrol``: get a certificate from a SCEP server."""

import re
from collections.abc import Callable
from typing import Any, TextIO

import click
from click.core import ParameterSource
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from twisted.internet.defer import ensureDeferred

from ..errors import ConfigurationError, SocketwarpError
from ..identity import enrol as _enrol
from ..identity.authority import MAX_COMMON_NAME, hostName
from ..identity.describe import describe, fingerprintOf
from ..identity.http import webAgent
from ..identity.names import checkedUid
from ..identity.pem import SettingFile
from ._options import asJson
from ._reactor import runOnReactor
from ._show import certificateFields, showJson

#: Characters of a secret.
MAX_SECRET = 1024


@click.command(short_help="Get a certificate from a SCEP server.")
@click.option("--url", required=True, help="The SCEP server's URL, like http://scep.example:3000/scep.")
@click.option("--uid", required=True, help="Who the certificate is for.")
@click.option(
    "--secret-file",
    "secretFile",
    envvar="SOCKETWARP_SECRET_FILE",
    type=click.File(encoding="utf-8"),
    help="File with the one-time secret; - for stdin. [SOCKETWARP_SECRET_FILE]",
)
@click.option(
    "--secret",
    envvar="SOCKETWARP_SECRET",
    help="The secret itself; others can see it, so prefer a file. [SOCKETWARP_SECRET]",
)
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Directory for the files.")
@click.option("--dns", multiple=True, help="DNS name for the certificate; may be given several times.")
@click.option("--ca-fingerprint", "fingerprint", help="SHA-256 fingerprint that the server's certificate must have.")
@click.option("--tls-ca", "tlsCa", type=click.Path(), help="Roots (PEM) for an https URL; the system's by default.")
@click.option("--renew", is_flag=True, help="Replace certificate and key (needs a new secret).")
@asJson
@click.pass_context
def enrol(
    context: click.Context,
    url: str,
    uid: str,
    secretFile: TextIO | None,
    secret: str | None,
    out: str,
    dns: tuple[str, ...],
    fingerprint: str | None,
    tlsCa: str | None,
    renew: bool,
    asJson: bool,
) -> None:
    """
    Get a certificate from a SCEP server, for a key that is made here: client.crt, client.key and ca.crt in --out.

    The secret is asked for on the terminal, unless an option or a variable gives it, or its file.

    \b
    Example:
      socketwarp enrol --url http://scep.example:3000/scep --uid office-1 --secret-file secret --out .
    """
    if secret is not None and secretFile is not None:
        secret, secretFile = _preferred(context, secret, secretFile)
    files = _enrol.EnrolmentFiles(out)
    files.check(renew)
    known = files.knownAuthority()
    wanted = _enrol.Enrolment(
        _checkedUrl(url),
        _checkedUid(uid),
        _secretFrom(secretFile, secret),
        [hostName(each) for each in dns],
        known,
        _checkedFingerprint(fingerprint),
    )
    try:
        enrolled = runOnReactor(lambda reactor: _enrolInTime(reactor, wanted, tlsCa, files.keep))
    except SocketwarpError:
        files.discard()
        raise
    files.write(enrolled)
    if asJson:
        paths = {"cert": files.certPath, "key": files.keyPath, "ca": files.caPath}
        made = certificateFields(describe(enrolled.certificate))
        showJson(paths | made | {"ca_sha256": fingerprintOf(enrolled.authority)})
        return
    click.echo(f"{files.certPath} and {files.keyPath}: {describe(enrolled.certificate)}")
    if known is None and fingerprint is None:
        click.echo(f"{files.caPath}: compare with the administrator's, sha256 {fingerprintOf(enrolled.authority)}")


async def _enrolInTime(
    reactor: Any,  # Any: see runOnReactor
    wanted: _enrol.Enrolment,
    tlsCa: str | None,
    keep: Callable[[RSAPrivateKey], None],
) -> _enrol.Enrolled:
    agent = webAgent(reactor, SettingFile("--tls-ca", tlsCa) if tlsCa else None)
    return await ensureDeferred(_enrol.enrol(agent, wanted, keep)).addTimeout(_enrol.DEADLINE, reactor)


def _checkedUrl(url: str) -> str:
    if not re.fullmatch(r"https?://[!-~]+", url) or "?" in url:
        raise ConfigurationError(
            f"--url {url!r}: must be an http or https URL without a query, like http://host:3000/scep"
        )
    return url


def _checkedUid(uid: str) -> str:
    try:
        if len(checkedUid(uid)) > MAX_COMMON_NAME:
            raise ValueError(f"the name has {len(uid)} characters; a certificate holds {MAX_COMMON_NAME}")
        if "\\" in uid:
            raise ValueError(f"the name {uid!r} has a backslash, where the SCEP server expects the secret to begin")
        return uid
    except ValueError as e:
        raise ConfigurationError(f"--uid: {e}") from e


def _checkedFingerprint(text: str | None) -> str | None:
    if text is None:
        return None
    digits = text.lower().removeprefix("sha256:").replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ConfigurationError(f"--ca-fingerprint {text!r}: SHA-256 has 64 hexadecimal digits")
    return digits


def _preferred(context: click.Context, secret: str, file: TextIO) -> tuple[str | None, TextIO | None]:
    """Of secret and file, what counts: an option before a variable, as with all settings."""
    isOption = [context.get_parameter_source(each) is ParameterSource.COMMANDLINE for each in ("secret", "secretFile")]
    match isOption:
        case [True, False]:
            return secret, None
        case [False, True]:
            return None, file
        case _:
            raise click.UsageError("the secret and a file with it are given: leave one of them out")


def _secretFrom(file: TextIO | None, given: str | None) -> str:
    if file is not None:
        try:
            secret = file.read(MAX_SECRET + 1).strip()
        except UnicodeDecodeError as e:
            raise ConfigurationError(f"--secret-file {file.name!r}: not UTF-8; is it the right file?") from e
    else:
        secret = given if given is not None else click.prompt("Secret", hide_input=True)
    if not 0 < len(secret) <= MAX_SECRET:
        raise ConfigurationError(f"the secret must have between 1 and {MAX_SECRET} characters")
    return secret
