"""
Stateless resets (RFC 9000 §10.3): an end that has lost its state tells its peer at once.

A connection id's token follows from the id and a key that outlives the process, so that a restarted listener can still
prove that it was the one who issued the id.
"""

import hmac
from hashlib import sha256
from os import urandom

from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

#: Why a connection ends that the peer doesn't know any more.
REASON = "the other end was restarted and doesn't know this session any more"

#: Bytes of a token, and of the shortest datagram that can be a reset.
TOKEN_SIZE = 16
MINIMUM_SIZE = 21

#: Bytes of a reset at the most: no longer than a short packet, so that it looks like one.
MAXIMUM_SIZE = 41

#: Resets for each second: what goes unanswered beyond that is answered at the peer's next attempt.
RESETS_PER_SECOND = 200


class ResetKey:
    """Makes tokens, and resets."""

    def __init__(self, privateKey: CertificateIssuerPrivateKeyTypes) -> None:
        """
        :param privateKey: of the certificate; a listener that is restarted still has it.
        """
        secret = privateKey.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self._key = hmac.digest(b"socketwarp stateless reset", secret, sha256)
        self._second = 0
        self._count = 0

    def token(self, connectionId: bytes) -> bytes:
        """The token of a connection id that we issue."""
        return hmac.digest(self._key, connectionId, sha256)[:TOKEN_SIZE]

    def answer(self, datagram: memoryview, connectionId: bytes, now: float) -> bytes | None:
        """
        The reset for a datagram to an id that nobody has, if there is to be one: shorter than what it answers, so that
        two ends can't reset each other for ever (§10.3.3).
        """
        size = min(len(datagram) - 1, MAXIMUM_SIZE)
        if size < MINIMUM_SIZE:
            return None
        if int(now) != self._second:
            self._second, self._count = int(now), 0
        self._count += 1
        if self._count > RESETS_PER_SECOND:
            return None
        filling = urandom(size - TOKEN_SIZE)
        return bytes((0x40 | filling[0] & 0x3F,)) + filling[1:] + self.token(connectionId)


def isReset(datagram: memoryview, token: bytes) -> bool:
    """Whether a datagram that can't be opened is a reset with that token."""
    return len(token) == TOKEN_SIZE and len(datagram) >= MINIMUM_SIZE and hmac.compare_digest(datagram[-16:], token)
