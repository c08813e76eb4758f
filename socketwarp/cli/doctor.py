"""``socketwarp doctor``: what keeps an end from working, in plain words, and how to mend it."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from errno import EACCES, EADDRINUSE
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import attrs
import click
from cryptography import x509
from twisted.internet.defer import ensureDeferred

from ..errors import (
    EX_FAILED,
    EX_NOPERM,
    EX_UNAVAILABLE,
    CertificateRejected,
    ConfigurationError,
    ProxyFailed,
    SessionLost,
    VerifierFault,
)
from ..identity.certificates import Credentials, loadCredentials
from ..identity.chains import UNKNOWN_CA
from ..identity.checkup import Files, Finding, checkFiles
from ..identity.http import Answer, explain, fetch
from ..identity.local import readAccessRules
from ..identity.pem import SettingFile, readCertificates, readPrivateKey, readRevocationLists
from ..identity.scep import DEADLINE, HEADER, decision, headerValue, scepAgent
from ..rules.check import ruleFiles
from ..settings import CommonSettings, ConnectorSettings, ListenerName, ListenerSettings, load, settingsOf
from ..wire.dialect import DIALECTS
from ._options import asJson
from ._overtls import Outcomes, lookOverTls
from ._reactor import runOnReactor
from ._show import showJson

#: Seconds in which a listener's answer must come, and how often it is asked.
PROBE_SECONDS, PROBES = 1.0, 3
#: How far this machine's clock may be from another's.
CLOCK_TOLERANCE = timedelta(minutes=5)
# A long header with a version that no one speaks (RFC 9000 §15: 0x?a?a?a?a), which every QUIC server answers with a
# Version Negotiation packet (§6.1) if the datagram is as large as a first one must be (§14.1).
_PROBE = (b"\xc0" + bytes.fromhex("1a2a3a4a") + b"\x08socketwp" + b"\x08doctorxx").ljust(1200, b"\x00")


@click.command(short_help="What is wrong with an end, and how to mend it.")
@click.argument("end", type=click.Choice(["listener", "connector"]))
@click.option("--config", type=click.Path(), help="Settings file, as for the end itself.")
@asJson
@click.pass_context
def doctor(context: click.Context, end: str, config: str | None, asJson: bool) -> None:
    """
    Look at an END's settings, files, clock and network, and say what is wrong and how to mend it.

    Run it as the end's user, in its directory and with its environment.

    \b
    Exit status, of several problems the highest:
       0  no problem; there may be warnings
       1  this machine's clock is wrong
      69  a listener, or the verifier, doesn't answer; an address isn't this host's
      77  a listener doesn't let us in, or we don't accept its certificate
      78  a setting or a file can't be used

    \b
    Example:
      socketwarp doctor connector --config /etc/socketwarp/swconnector.toml
    """
    findings = _checkListener(config) if end == "listener" else _checkConnector(config)
    told = []
    for finding in findings:
        told.append(finding)
        if not asJson:
            _tell(finding)
    problems = sum(finding.level == "problem" for finding in told)
    if asJson:
        showJson([attrs.asdict(finding) for finding in told])
    else:
        click.echo(f"{problems or 'no'} problem{'' if problems == 1 else 's'} found")
    context.exit(max(finding.status for finding in told))


def _tell(finding: Finding) -> None:
    click.echo(f"{finding.level:<8} {finding.text}")
    if finding.remedy:
        click.echo(f"{'':<8}   -> {finding.remedy}")


def _checkListener(config: str | None) -> Iterator[Finding]:
    try:
        settings = load(ListenerSettings, {"config": config}, os.environ)
    except ConfigurationError as e:
        yield Finding("problem", str(e))
        return
    yield Finding("fine", "the settings can be read")
    yield from checkVariables(ListenerSettings, ("SWL_", "APIS_"))
    files = Files("server", settings.certPath, settings.keyPath, settings.caPath, *_lists(settings))
    yield from checkFiles(files)
    yield from _checkApi(settings)
    yield from _checkPorts(settings)
    if settings.verifier == "scep":
        yield from _checkVerifier(settings)
    elif settings.accessPath is not None:
        yield from _checkAccess(SettingFile("SWL_ACCESS_PATH", settings.accessPath))
    yield from _checkRules(settings)


def checkVariables(kind: type[CommonSettings], prefixes: tuple[str, ...]) -> Iterator[Finding]:
    """Variables that look like settings and are none, since an end passes them over."""
    known = {f"{kind.prefix}_SETTINGS", *(name for each in settingsOf(kind).values() for name in each.variables)}
    for name in sorted(os.environ.keys() - known):
        if name.startswith(prefixes):
            yield Finding("warning", f"{name} is no setting, and not read", "is it misspelt, or of another version?")


def _checkApi(settings: ListenerSettings) -> Iterator[Finding]:
    """The files of the API's TLS, as far as there are any."""
    read: list[tuple[str, Callable[[SettingFile], object], Sequence[Path | None]]] = [
        ("APIS_CERT_PATH", readCertificates, [settings.apiCertPath]),
        ("APIS_KEY_PATH", readPrivateKey, [settings.apiKeyPath]),
        ("APIS_CLIENT_CA_PATH", readCertificates, [settings.apiClientCaPath]),
        ("APIS_CRL_PATHS", readRevocationLists, settings.apiCrlPaths),
    ]
    for name, reader, paths in read:
        for path in paths:
            try:
                if path is not None:
                    reader(SettingFile(name, path))
            except ConfigurationError as e:
                yield Finding("problem", str(e))


def _checkAccess(file: SettingFile) -> Iterator[Finding]:
    try:
        rules = readAccessRules(file)
    except ConfigurationError:
        return  # told with the other rules
    others = "nobody else" if rules.allowed else "everybody else"
    yield Finding("fine", f"{file}: {len(rules.allowed)} allowed, {len(rules.denied)} denied, {others} allowed")


def _checkRules(settings: CommonSettings) -> Iterator[Finding]:
    for read in ruleFiles(settings):
        try:
            read()
        except ConfigurationError as e:
            yield Finding("problem", str(e))


def _checkConnector(config: str | None) -> Iterator[Finding]:
    try:
        settings = load(ConnectorSettings, {"config": config}, os.environ)
    except ConfigurationError as e:
        yield Finding("problem", str(e))
        return
    yield Finding("fine", "the settings can be read")
    yield from checkVariables(ConnectorSettings, ("SWC_",))
    files = Files("client", settings.certPath, settings.keyPath, settings.caPath, *_lists(settings))
    yield from checkFiles(files)
    yield from _checkRules(settings)
    yield from _checkListeners(settings, _trusted(files))


def _checkListeners(settings: ConnectorSettings, trusted: Credentials | None) -> Iterator[Finding]:
    """By each carrier that the connector may use; of two, one is enough."""
    byTls: Outcomes = {}
    if settings.carrier != "quic" and trusted is not None:
        byTls = lookOverTls(settings, trusted)
    for listener in settings.listeners:
        findings: list[Finding] = []
        if settings.carrier != "tls" and settings.proxyOf(listener) is None:
            findings += checkListenerAnswers(listener.host, settings.portsOf(listener)[0], trusted)
        if listener in byTls:
            tls = byTls[listener]
            isFine = bool(findings) and all(each.level == "fine" for each in findings)
            found = _overTls(settings, listener, tls)
            if tls is None:
                findings = [_softened(each, "the session goes by TLS, unless that is mended") for each in findings]
            elif isFine and not _isRefusal(tls):
                found = _softened(found, "nothing, while QUIC gets through")
            findings.append(found)
        yield from findings


def _isRefusal(error: Exception | None) -> bool:
    return isinstance(error, SessionLost) and error.errorCode is not None


def _softened(finding: Finding, remedy: str) -> Finding:
    """What keeps one carrier away is no problem while the other gets through."""
    isProblem = finding.level == "problem"
    return Finding("warning", finding.text, f"{remedy}: {finding.remedy}") if isProblem else finding


def _overTls(settings: ConnectorSettings, listener: ListenerName, error: Exception | None) -> Finding:
    proxy = settings.proxyOf(listener)
    where = f"{listener.host}, TCP port {settings.portsOf(listener)[1]}{f', through {proxy}' if proxy else ''}"
    if error is None:
        return Finding("fine", f"a listener lets us in by TLS at {where}")
    status, reason = EX_UNAVAILABLE, str(error)
    if isinstance(error, ProxyFailed):
        remedy = "mend that there, or name the listener in SWC_NO_PROXY if it is reached without"
    elif isinstance(error, OSError):
        reason = error.strerror or reason
        remedy = "is TLS on there (SWL_TLS_PORT), the port right, and TCP let through by every firewall on the way?"
    else:
        remedy = "see the listener's log, and mend the certificate, or server_name"
        status = EX_NOPERM if _isRefusal(error) else EX_UNAVAILABLE
    return Finding("problem", f"no listener lets us in by TLS at {where}: {reason}", remedy, status)


def _trusted(files: Files) -> Credentials | None:
    try:
        return loadCredentials(files.cert, files.key, files.ca, files.crls, files.crlExpired, files.role)
    except ConfigurationError:
        return None  # told already


def _lists(settings: CommonSettings) -> tuple[Any, Any]:  # Any: two settings that Files takes as they are
    return settings.crlPaths, settings.crlExpired


def _checkPorts(settings: ListenerSettings) -> Iterator[Finding]:
    """Those of connectors, by each carrier, and the API's."""
    yield checkFreePort("UDP", settings.address, settings.port, "SWL_PORT")
    if settings.tlsPort != "off":
        port = settings.port if settings.tlsPort == "same" else settings.tlsPort
        yield checkFreePort("TCP", settings.address, port, "SWL_TLS_PORT")
    yield checkFreePort("TCP", settings.apiAddress, settings.apiPort, "APIS_PORT")


def checkFreePort(transport: Literal["UDP", "TCP"], address: str, port: int, setting: str) -> Finding:
    """Whether a listener could have that port, which `setting` names."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if transport == "UDP" else socket.SOCK_STREAM
    where = f"{transport} port {port} of {address}"
    with socket.socket(family, kind) as probe:
        if transport == "TCP":  # what is left of closed connections is in nobody's way
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as e:
            text = f"{where} can't be had: {e.strerror}"
            if e.errno == EADDRINUSE:
                remedy = f"right, if the listener is running; else end what has it, or set {setting}"
                return Finding("warning", text, remedy)
            if e.errno == EACCES:
                remedy = (
                    f"right, if the listener will run with CAP_NET_BIND_SERVICE, as by its unit; else set {setting}"
                )
                return Finding("warning", text, remedy)
            name = setting.partition("_")[0] + "_ADDRS"
            return Finding("problem", text, f"set {name} to an address of this host", EX_UNAVAILABLE)
    isLocal = ip_address(address).is_loopback
    return Finding("fine", f"{where} is free{'' if isLocal else '; see that firewalls let it in'}")


def checkListenerAnswers(name: str, port: int, trusted: Credentials | None) -> Iterator[Finding]:
    """Whether a QUIC server answers at one of the addresses of `name`, and has a certificate that is `trusted`."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM)
    except OSError as e:
        text = f"server_name {name!r} has no address: {e.strerror}"
        yield Finding("problem", text, "correct it, or the name server", EX_UNAVAILABLE)
        return
    errors = []
    for family, _, _, _, address in found:
        error = _probe(family, address)
        if error is None:
            yield Finding("fine", f"a QUIC server answers at {address[0]} port {port}")
            if trusted is not None:
                yield checkListenerCertificate(family, address, name, trusted)
            return
        errors.append(f"{address[0]}: {error}")
    remedy = "is the listener running, the port right, and UDP let through by every firewall on the way?"
    yield Finding("problem", f"no listener answers at UDP port {port} ({'; '.join(errors)})", remedy, EX_UNAVAILABLE)


def checkListenerCertificate(
    family: int,
    address: Any,  # Any: as getaddrinfo has it
    name: str,
    trusted: Credentials,
) -> Finding:
    """Whether we would accept the certificate of the listener that is there as that of `name`."""
    from ..quic.probe import probe  # only here: loading QUIC takes longer than most commands

    def check(chain: Sequence[x509.Certificate]) -> None:
        trusted.checkPeer(chain, "server", name)

    where = f"the listener at {address[0]} port {address[1]}"
    try:
        probe(family, address, name, list(DIALECTS), trusted.roots, check)
    except CertificateRejected as e:
        remedy = "have its certificate replaced, or correct server_name"
        if e.alert == UNKNOWN_CA:
            remedy = "put the root of its certificate into the file of ca_cert_path, if that listener is the right one"
        return Finding("problem", f"we would refuse {where} as {name}: {e}", remedy, EX_NOPERM)
    except (SessionLost, OSError) as e:
        remedy = "is it a socketwarp listener? see its log"
        return Finding("problem", f"{where} shows no certificate: {e}", remedy, EX_UNAVAILABLE)
    return Finding("fine", f"{where} has a good certificate for {name}")


def _probe(family: int, address: Any) -> str | None:  # Any: an address as getaddrinfo has it
    """`None` when a QUIC server has answered, else why not."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(address)
            for _ in range(PROBES):
                probe.send(_PROBE)
                answer = _received(probe)
                if answer is not None:
                    isVersionNegotiation = answer[:1] >= b"\x80" and answer[1:5] == bytes(4)
                    return None if isVersionNegotiation else "what answers there doesn't speak QUIC"
        except OSError as e:
            return e.strerror or str(e)
    return f"no answer within {PROBES * PROBE_SECONDS:g} s"


def _received(probe: socket.socket) -> bytes | None:
    try:
        return probe.recv(2048)
    except TimeoutError:
        return None


def _checkVerifier(settings: ListenerSettings) -> Iterator[Finding]:
    """Ask about our own certificate: any decision shows that the verifier works."""
    try:
        loaded = loadCredentials(settings.certPath, settings.keyPath, settings.caPath, role="server")
    except ConfigurationError:
        return  # told already

    async def ask(reactor: Any) -> Answer:  # Any: see runOnReactor
        headers = {HEADER: headerValue(loaded.chain[0])}
        agent = scepAgent(reactor, settings.scepCaPath, settings.scepCertPath, settings.scepKeyPath)
        call = ensureDeferred(fetch(agent, b"GET", settings.scepUrl, headers))
        return await call.addTimeout(DEADLINE, reactor)

    remedy = "start it, or correct SWL_SCEP_URL; until then every connector is refused"
    try:
        answer = runOnReactor(ask)
        decision(answer, loaded.chain[0])
    except ConfigurationError as e:
        yield Finding("problem", str(e))
    except VerifierFault as e:
        yield Finding("problem", str(e), remedy, EX_UNAVAILABLE)
    except Exception as e:  # names, connections, TLS, HTTP: whatever Twisted raises
        text = f"the verifier at {settings.scepUrl} can't be asked: {explain(e)}"
        yield Finding("problem", text, remedy, EX_UNAVAILABLE)
    else:
        yield Finding("fine", f"the verifier at {settings.scepUrl} decides about certificates")
        yield from checkClock(answer.date, datetime.now(UTC))


def checkClock(date: str, now: datetime) -> Iterator[Finding]:
    """Compare our clock with the ``Date`` of an HTTP answer, if it has one."""
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)  # "-0000": a UTC that claims nothing about the place (RFC 5322 §3.3)
    if abs(theirs - now) > CLOCK_TOLERANCE:
        text = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, the SCEP server's {theirs:%Y-%m-%d %H:%M}"
        remedy = "set the wrong one (NTP): certificates are good only between their dates"
        yield Finding("problem", text, remedy, EX_FAILED)
    else:
        yield Finding("fine", "this machine's clock agrees with the SCEP server's")
