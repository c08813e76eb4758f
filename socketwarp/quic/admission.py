"""
Datagrams that belong to no session: whether one begins, and what is answered otherwise.

Before a client's address is validated, nothing of under 1,200 bytes is answered but with less than it has (RFC 9000
§8.1, §10.3.3), and under load a client must show with a Retry that the address is its own before it costs a handshake.
"""

from os import urandom
from typing import Any

import attrs
from aioquic._buffer import Buffer
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from ..throttle import Bucket
from .reset import ResetKey

#: Bytes of the connection ids that we issue.
CONNECTION_ID_SIZE = 8

#: QUIC version 1 alone: what the original speaks.
VERSIONS: list[int] = [QuicProtocolVersion.VERSION_1]

#: Handshakes that may be unfinished at a time: one costs 84 KiB (measured) and a signature. Above the first number a
#: client must show with a Retry that its address is its own (RFC 9000 §8.1.2), above the second it isn't heard.
RETRY_THRESHOLD = 32
MAX_HANDSHAKES = 1024
#: Retries a second, and at once. One costs 18 us, twice as much as to drop a datagram: a flood from invented addresses
#: costs all others a tenth of their speed at the most. 500 connectors that come back together get one each.
RETRIES_PER_SECOND = 1000


@attrs.frozen
class Admitted:
    """
    A connection may begin.

    :ivar destination: the connection id that the client sends to until it knows ours.
    :ivar original: the one it sent to first, before a Retry; ``retrySource``: ours in the Retry, if there was one.
    """

    destination: bytes
    original: bytes
    retrySource: bytes | None


class Admission:
    """Decides about datagrams for connection ids that nobody has."""

    def __init__(self, resetKey: ResetKey) -> None:
        self._resetKey = resetKey
        self._retry = QuicRetryTokenHandler()
        self._retries = Bucket(RETRIES_PER_SECOND, RETRIES_PER_SECOND)

    def decide(
        self, datagram: memoryview, address: Any, unfinished: int, now: float
    ) -> Admitted | bytes | None:  # Any: a socket address
        """
        What to do about `datagram`, while `unfinished` handshakes are under way: begin, answer with these bytes, or
        nothing.
        """
        if not datagram[0] & 0x80:
            return self._resetKey.answer(datagram, bytes(datagram[1 : 1 + CONNECTION_ID_SIZE]), now)
        if len(datagram) < SMALLEST_MAX_DATAGRAM_SIZE:
            return None
        try:
            header = pull_quic_header(Buffer(data=bytes(datagram)), host_cid_length=CONNECTION_ID_SIZE)
        except ValueError:
            return None
        if header.packet_type == QuicPacketType.VERSION_NEGOTIATION:
            return None
        if header.version not in VERSIONS:
            return encode_quic_version_negotiation(
                source_cid=header.destination_cid, destination_cid=header.source_cid, supported_versions=VERSIONS
            )
        if header.packet_type != QuicPacketType.INITIAL or unfinished >= MAX_HANDSHAKES:
            return None
        if header.token:
            return self._admitWithToken(header, address, now)
        if unfinished >= RETRY_THRESHOLD:
            return self._retryFor(header, address, now) if self._retries.take(now) else None
        return Admitted(header.destination_cid, header.destination_cid, None)

    def _admitWithToken(self, header: QuicHeader, address: Any, now: float) -> Admitted | None:
        try:
            original = self._retry.validate_token(
                address=address, destination_cid=header.destination_cid, token=header.token, now=now
            )
        except ValueError:
            return None  # RFC 9000 §8.1.3 allows to drop it; the client begins anew
        return Admitted(header.destination_cid, original, header.destination_cid)

    def _retryFor(self, header: QuicHeader, address: Any, now: float) -> bytes:
        source = urandom(CONNECTION_ID_SIZE)
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source,
            now=now,
        )
        return encode_quic_retry(
            version=VERSIONS[0],
            source_cid=source,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
