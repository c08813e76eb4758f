"""
Packet protection by the batch (RFC 9001 §5) for 1-RTT packets under AES-GCM.

Each packet needs an AEAD call of its own; header protection's masks for a whole batch come from one AES-ECB call over
all the samples joined. ChaCha20 masks can't be had that way, so that cipher suite isn't offered (see `engine`).
"""

import struct
from collections.abc import Iterator, Sequence
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..interfaces import Piece

#: Bytes of the AEAD's tag, and of a header protection sample (RFC 9001 §5.3, §5.4.2).
TAG_SIZE = 16
SAMPLE_SIZE = 16

#: Our packet numbers take 2 bytes on the wire: enough for 32,767 unacknowledged packets (RFC 9000 §17.1).
NUMBER_SIZE = 2

_NUMBER = struct.Struct("!H")


@cache
def _headerOf(idSize: int) -> struct.Struct:
    """A short header: its first byte, a connection id of so many bytes, a packet number."""
    return struct.Struct(f"!B{idSize}sH")


_SEAL_MASKS = struct.Struct("!BH13x")
_OPEN_MASKS = struct.Struct("!BI11x")


class Keys:
    """
    One direction's packet protection keys: ``key`` and ``hp`` 16 or 32 bytes, ``iv`` 12 bytes (RFC 9001 §5.1).

    :ivar phase: the Key Phase bit of packets under these keys.
    """

    def __init__(self, key: bytes, iv: bytes, hp: bytes, phase: int) -> None:
        self.phase = phase
        self._aead = AESGCM(key)
        self._iv = int.from_bytes(iv)
        # ECB is what RFC 9001 §5.4.3 prescribes for masks; it encrypts no data.
        self.hp = hp
        self._mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update

    def seal(self, spin: bool, destination: bytes, number: int, payloads: Sequence[bytes]) -> list[Piece]:
        """
        Make a packet of each payload, numbered from `number` on; returns header, sealed payload, header, … to be sent
        one after the other. A payload is at least 2 bytes.
        """
        first = 0x40 | spin << 5 | self.phase << 2 | (NUMBER_SIZE - 1)
        prefix = bytes((first,)) + destination
        encrypt, iv, pack = self._aead.encrypt, self._iv, _NUMBER.pack
        sealed = [
            encrypt((iv ^ each).to_bytes(12), payload, prefix + pack(each & 0xFFFF))
            for each, payload in enumerate(payloads, number)
        ]
        masks = self._mask(b"".join([each[2:18] for each in sealed]))
        header = _headerOf(len(destination)).pack
        pieces: list[Piece] = []
        for payload, (firstMask, numberMask) in zip(sealed, _SEAL_MASKS.iter_unpack(masks), strict=True):
            pieces += (header(first ^ (firstMask & 0x1F), destination, number & 0xFFFF ^ numberMask), payload)
            number += 1
        return pieces

    def open(
        self, datagrams: Sequence[memoryview], destination: bytes, expected: int
    ) -> Iterator[tuple[int, int, bytes | None]]:
        """
        Open packets, each alone in its datagram, with short headers to `destination`, and long enough (`minimumSize`).

        Yields for each its first byte without protection, its packet number, and its plaintext; `None` when reserved
        bits are set, the key phase is another, or the packet is forged. The next expected number follows what was
        opened.
        """
        offset = 1 + len(destination)
        sample = offset + 4
        masks = self._mask(b"".join([each[sample : sample + SAMPLE_SIZE] for each in datagrams]))
        decrypt, iv, phase = self._aead.decrypt, self._iv, self.phase << 2
        prefixOf, prefix = -1, b""
        for datagram, (firstMask, mask) in zip(datagrams, _OPEN_MASKS.iter_unpack(masks), strict=True):
            first = datagram[0] ^ (firstMask & 0x1F)
            size = (first & 0x03) + 1
            bits = 8 * size
            start = offset + size
            truncated = int.from_bytes(datagram[offset:start]) ^ (mask >> 32 - bits)
            number = expected  # as it is nearly always
            if expected & ((1 << bits) - 1) != truncated:
                number = decodeNumber(truncated, bits, expected)
            if first & 0x1C != phase:
                yield first, number, None
                continue
            if first != prefixOf:
                prefixOf, prefix = first, bytes((first,)) + destination
            try:
                plain = decrypt((iv ^ number).to_bytes(12), datagram[start:], prefix + truncated.to_bytes(size))
            except InvalidTag:
                yield first, number, None
                continue
            if number >= expected:
                expected = number + 1
            yield first, number, plain


def minimumSize(destination: bytes) -> int:
    """The shortest datagram that `Keys.open` can take a sample from, in bytes."""
    return 1 + len(destination) + 4 + SAMPLE_SIZE


def decodeNumber(truncated: int, bits: int, expected: int) -> int:
    """The full packet number nearest to `expected` (RFC 9000 §A.3)."""
    window = 1 << bits
    half = window >> 1
    number = (expected & ~(window - 1)) | truncated
    if number <= expected - half and number < (1 << 62) - window:
        return number + window
    if number > expected + half and number >= window:
        return number - window
    return number
