"""
Who answers there? A handshake as a client that has no certificate, given up once the server has shown its own.

For a command that has nothing else to do: it blocks, and needs no reactor.
"""

import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509

from ..errors import CertificateRejected, SessionLost
from .admission import VERSIONS
from .batch import Batch
from .engine import Engine
from .windows import Limits

#: Seconds for the whole handshake: several retransmissions, the first of which comes after one second.
PROBE_SECONDS = 5.0
#: Seconds between two looks at the timers.
_TICK = 0.05
#: What the server hears of it.
_REASON = "it was only a look at the certificate"


def probe(
    family: int,
    address: Any,  # Any: as the address family has it
    serverName: str,
    protocols: Sequence[str],
    roots: bytes,
    checkPeer: Callable[[Sequence[x509.Certificate]], None],
) -> None:
    """
    Look at the certificate of a QUIC server.

    :param roots: PEM.
    :param checkPeer: raises `CertificateRejected` unless the server's chain, the leaf first, will do.
    :raises CertificateRejected: `checkPeer` did, or TLS.
    :raises SessionLost: the server ended the handshake before it showed anything.
    :raises OSError: it can't be reached; `TimeoutError` when it is silent.
    """
    outcomes: list[CertificateRejected | None] = []

    def check(chain: Sequence[x509.Certificate]) -> None:
        try:
            checkPeer(chain)
        except CertificateRejected as e:
            outcomes.append(e)
            raise
        outcomes.append(None)

    configuration = QuicConfiguration(
        alpn_protocols=list(protocols),
        is_client=True,
        server_name=serverName,
        supported_versions=VERSIONS,
        cadata=roots,
    )
    engine = Engine(configuration, check, Limits())
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.connect(address)
        udp.settimeout(_TICK)
        engine.connect(address, monotonic())
        _run(engine, udp, address, outcomes)
        reason = engine.closeReason
        engine.close(reason_phrase=_REASON)
        _send(engine, udp)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome
    if reason is not None:
        raise SessionLost(f"the handshake failed: {reason.reason_phrase or hex(reason.error_code)}", reason.error_code)


def _run(engine: Engine, udp: socket.socket, address: Any, outcomes: Sequence[object]) -> None:
    deadline = monotonic() + PROBE_SECONDS
    while not outcomes and not engine.isClosing:
        _send(engine, udp)
        if monotonic() > deadline:
            raise TimeoutError(f"no certificate within {PROBE_SECONDS:g} s")
        try:
            datagram = udp.recv(65536)
        except TimeoutError:
            datagram = None
        if datagram is not None:
            engine.receive(Batch(memoryview(datagram), len(datagram)), address, monotonic())
        due = engine.nextTimer()
        if due is not None and due <= monotonic():
            engine.onTimer(monotonic())


def _send(engine: Engine, udp: socket.socket) -> None:
    for transmission in engine.transmit(monotonic()):
        udp.send(b"".join(transmission.pieces))
