"""
Packet protection by the batch (RFC 9001 §5) for 1-RTT packets under AES-GCM.

Each packet needs an AEAD call of its own; header protection's masks for a whole batch come from one AES-ECB call over
all the samples joined. ChaCha20 masks can't be had that way, so that cipher suite isn't offered (see `engine`).
"""

import math
import struct
from collections.abc import Iterator, Sequence
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: Bytes of the AEAD's tag, and of a header protection sample (RFC 9001 §5.3, §5.4.2).
TAG_SIZE = 16
SAMPLE_SIZE = 16

#: Our packet numbers take 2 bytes on the wire: enough for 32,767 unacknowledged packets (RFC 9000 §17.1).
NUMBER_SIZE = 2

#: How far beyond the largest one acknowledged flights go; the rest is for probes, or after an outage the receiver would
#: take their numbers for others.
MOST_AHEAD = 32_000


@cache
def _headerOf(idSize: int) -> struct.Struct:
    """A short header: its first byte, a connection id of so many bytes, a packet number."""
    return struct.Struct(f"!B{idSize}sH")


_NUMBER = struct.Struct("!H")
_SEAL_MASKS = struct.Struct("!BH13x")
_OPEN_MASKS = struct.Struct("!BI11x")
#: Of a short header's first byte, what protection covers.
_FIRST_BITS = bytes([each & 0x1F for each in range(256)])


def _xor(column: memoryview, masks: bytes) -> bytes:
    """A byte of each header, and its mask."""
    return (int.from_bytes(column) ^ int.from_bytes(masks)).to_bytes(len(masks))


class Keys:
    """
    One direction's packet protection keys: ``key`` and ``hp`` 16 or 32 bytes, ``iv`` 12 bytes (RFC 9001 §5.1).

    :ivar phase: the Key Phase bit of packets under these keys.
    :ivar lowest: the lowest packet number opened with them; infinite before the first.
    """

    def __init__(self, key: bytes, iv: bytes, hp: bytes, phase: int) -> None:
        self.phase = phase
        self.lowest = math.inf
        self._aead = AESGCM(key)
        self._iv = int.from_bytes(iv)
        # ECB is what RFC 9001 §5.4.3 prescribes for masks; it encrypts no data.
        self.hp = hp
        self._mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update

    def seal(self, spin: bool, destination: bytes, number: int, payloads: Sequence[bytes]) -> list[bytes]:
        """
        Make a packet of each payload, numbered from `number` on; returns header, sealed payload, header, … to be sent
        one after the other. A payload has at least 2 bytes.
        """
        first = 0x40 | spin << 5 | self.phase << 2 | (NUMBER_SIZE - 1)
        prefix = bytes((first,)) + destination
        encrypt, iv, pack = self._aead.encrypt, self._iv, _NUMBER.pack
        sealed = [
            encrypt((iv ^ each).to_bytes(12), payload, prefix + pack(each & 0xFFFF))
            for each, payload in enumerate(payloads, number)
        ]
        masks = self._mask(b"".join([each[2 : 2 + SAMPLE_SIZE] for each in sealed]))
        header = _headerOf(len(destination)).pack
        pieces: list[bytes] = []
        for payload, (firstMask, numberMask) in zip(sealed, _SEAL_MASKS.iter_unpack(masks), strict=True):
            pieces += (header(first ^ (firstMask & 0x1F), destination, number & 0xFFFF ^ numberMask), payload)
            number += 1
        return pieces

    def openRun(
        self, data: memoryview, size: int, destination: bytes, expected: int
    ) -> tuple[int, int, list[bytes]] | None:
        """
        Open packets of `size` bytes each, one after the other in `data`, that are as `seal` makes them: numbered
        without gaps, from `expected` on or later, with short headers to `destination` that are alike in all else.

        :return: their first byte without protection, the first one's packet number, and the plaintexts; `None` when
            they aren't so, or one is forged: `open` sorts that out.
        """
        at = 1 + len(destination)
        start = at + NUMBER_SIZE
        samples = struct.iter_unpack(f"{at + 4}x{SAMPLE_SIZE}s{size - at - 4 - SAMPLE_SIZE}x", data)
        masks = self._mask(b"".join([each for (each,) in samples]))
        first = data[0] ^ (masks[0] & 0x1F)
        number = decodeNumber(int.from_bytes(data[at:start]) ^ int.from_bytes(masks[1:3]), 8 * NUMBER_SIZE, expected)
        if first & 0x1F != self.phase << 2 | (NUMBER_SIZE - 1) or number < expected:
            return None
        numbers = range(number, number + len(data) // size)
        prefix, pack, iv = bytes((first,)) + destination, _NUMBER.pack, self._iv
        headers = [prefix + pack(each & 0xFFFF) for each in numbers]
        # Headers are compared by the column: the same byte of all of them at once.
        asSent, firstMasks = b"".join(headers), masks[::SAMPLE_SIZE].translate(_FIRST_BITS)
        if (
            _xor(data[::size], firstMasks) != asSent[::start]
            or _xor(data[at::size], masks[1::SAMPLE_SIZE]) != asSent[at::start]
            or _xor(data[at + 1 :: size], masks[2::SAMPLE_SIZE]) != asSent[at + 1 :: start]
        ):
            return None
        sealed = [data[each + start : each + size] for each in range(0, len(data), size)]
        nonces = [(iv ^ each).to_bytes(12) for each in numbers]
        try:
            plains = list(map(self._aead.decrypt, nonces, sealed, headers))
        except InvalidTag:
            return None
        if number < self.lowest:
            self.lowest = number
        return first, number, plains

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
            if number < self.lowest:
                self.lowest = number
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
