"""Packets sealed and opened by the batch, against aioquic's own packet protection, both ways."""

import itertools
import math
import random
from typing import Any

from aioquic._crypto import CryptoError
from aioquic.quic.crypto import CryptoContext, derive_key_iv_hp
from aioquic.quic.packet import QuicProtocolVersion, decode_packet_number
from aioquic.tls import CipherSuite
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.protection import NUMBER_SIZE, TAG_SIZE, Keys, decodeNumber, minimumSize

SUITES = (CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384)
CID = bytes.fromhex("c0ffee0102030405")
VERSION = QuicProtocolVersion.VERSION_1


def contexts(suite: CipherSuite, phase: int = 0) -> tuple[Keys, CryptoContext]:
    """The same keys, ours and aioquic's."""
    secret = random.Random(suite).randbytes(48 if suite == CipherSuite.AES_256_GCM_SHA384 else 32)
    theirs = CryptoContext(key_phase=phase)
    theirs.setup(cipher_suite=suite, secret=secret, version=VERSION)
    key, iv, hp = derive_key_iv_hp(cipher_suite=suite, secret=secret, version=VERSION)
    return Keys(key, iv, hp, phase), theirs


def sealed(keys: Keys, number: int, payloads: list[bytes], spin: bool = False) -> list[bytes]:
    """Datagrams as they go out."""
    pieces = keys.seal(spin, CID, number, payloads)
    return [bytes(pieces[i]) + bytes(pieces[i + 1]) for i in range(0, len(pieces), 2)]


def opened(keys: Keys, datagrams: list[bytes], expected: int) -> list[tuple[int, int, bytes | None]]:
    return list(keys.open([memoryview(each) for each in datagrams], CID, expected))


class SealTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(
        st.sampled_from(SUITES),
        st.integers(0, 1 << 40),
        st.lists(st.binary(min_size=2, max_size=60), min_size=1, max_size=6),
        st.booleans(),
        st.integers(0, 1),
    )
    def test_aioquicOpensWhatWeSeal(
        self, suite: CipherSuite, number: int, payloads: list[bytes], spin: bool, phase: int
    ) -> None:
        keys, theirs = contexts(suite, phase)
        for index, datagram in enumerate(sealed(keys, number, payloads, spin)):
            header, plain, found, isOtherPhase = theirs.decrypt_packet(datagram, 1 + len(CID), number + index)
            self.assertEqual((payloads[index], number + index, False), (plain, found, isOtherPhase))
            self.assertEqual(0x40 | spin << 5 | phase << 2 | NUMBER_SIZE - 1, header[0])
            self.assertEqual(len(payloads[index]) + 1 + len(CID) + NUMBER_SIZE + TAG_SIZE, len(datagram))

    def test_payloadsMayBeOfAnyKindOfBytes(self) -> None:
        keys, _ = contexts(SUITES[0])
        (datagram,) = sealed(keys, 0, [bytearray(b"hello")])  # type: ignore[list-item]  # a Piece
        self.assertEqual([(0x41, 0, b"hello")], opened(keys, [datagram], 0))


class OpenTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(
        st.sampled_from(SUITES),
        st.integers(300, 1 << 40),
        st.lists(
            st.tuples(st.integers(-60, 60), st.integers(1, 4), st.binary(min_size=4, max_size=60)),
            min_size=1,
            max_size=6,
        ),
        st.integers(0, 1),
    )
    def test_weOpenWhatAioquicSealsInAnyOrder(
        self, suite: CipherSuite, expected: int, packets: list[tuple[int, int, bytes]], phase: int
    ) -> None:
        """With packet numbers of one to four bytes."""
        keys, theirs = contexts(suite, phase)
        datagrams = []
        for distance, size, plain in packets:
            number = expected + distance
            header = bytes((0x40 | phase << 2 | size - 1,)) + CID + (number & (1 << 8 * size) - 1).to_bytes(size)
            datagrams.append(theirs.encrypt_packet(header, plain, number))
        for (distance, _, plain), (_, number, found) in zip(packets, opened(keys, datagrams, expected), strict=True):
            self.assertEqual((expected + distance, plain), (number, found))

    def test_theExpectedNumberFollowsWhatWasOpened(self) -> None:
        """One-byte numbers far beyond what was expected at first."""
        keys, theirs = contexts(SUITES[0])
        datagrams = [
            theirs.encrypt_packet(b"\x40" + CID + (number & 0xFF).to_bytes(1), b"data", number)
            for number in range(0, 1000, 100)
        ]
        self.assertEqual(
            list(range(0, 1000, 100)), [number for _, number, plain in opened(keys, datagrams, 0) if plain]
        )

    def test_forgedPacketsAreNotOpenedAndSpoilNothing(self) -> None:
        """Each byte of a packet changed in turn, between two good ones."""
        keys, _ = contexts(SUITES[0])
        good = sealed(keys, 10, [b"payload"] * 2)
        for index in range(1 + len(CID), len(good[0])):
            forged = bytearray(good[0])
            forged[index] ^= 1
            plains = [plain for _, _, plain in opened(keys, [good[0], bytes(forged), good[1]], 10)]
            self.assertEqual([b"payload", None, b"payload"], plains)

    def test_packetsOfTheOtherPhaseAndWithReservedBitsAreLeftToTheOrdinaryPath(self) -> None:
        keys, _ = contexts(SUITES[0])
        _, other = contexts(SUITES[0], 1)
        for first in (0x44, 0x48, 0x50):
            datagram = other.encrypt_packet(bytes((first | 1,)) + CID + b"\0\0", b"data", 0)
            ((found, number, plain),) = opened(keys, [datagram], 0)
            self.assertEqual((first | 1, 0, None), (found, number, plain))

    def test_theShortestPacketsHaveASample(self) -> None:
        keys, theirs = contexts(SUITES[0])
        datagram = theirs.encrypt_packet(b"\x43" + CID + bytes(4), b"", 0)
        self.assertEqual(minimumSize(CID), len(datagram))
        self.assertEqual([(0x43, 0, b"")], opened(keys, [datagram], 0))

    def test_otherKeysOpenNothing(self) -> None:
        keys, _ = contexts(SUITES[0])
        others, theirs = contexts(SUITES[1])
        datagrams = sealed(keys, 0, [b"payload"])
        self.assertEqual([None], [plain for _, _, plain in opened(others, datagrams, 0)])
        self.assertRaises(CryptoError, theirs.decrypt_packet, datagrams[0], 1 + len(CID), 0)


class RunTests(SynchronousTestCase):
    """Packets of one size, as `seal` makes them, opened together."""

    def openRun(self, keys: Keys, datagrams: list[bytes], expected: int) -> Any:
        return keys.openRun(memoryview(b"".join(datagrams)), len(datagrams[0]), CID, expected)

    def test_theLowestNumberThatWasOpenedIsKnown(self) -> None:
        """One by one or as a run; forged ones don't count."""
        keys, _ = contexts(SUITES[0])
        run, earlier = sealed(keys, 40, [b"payload"] * 8), sealed(keys, 7, [b"payload"] * 2)
        forged = [each[:-1] + b"?" for each in sealed(keys, 3, [b"payload"] * 8)]
        self.assertIsNone(self.openRun(keys, forged, 3))
        self.assertEqual((math.inf, None), (keys.lowest, opened(keys, forged[:1], 3)[0][2]))
        for lowest, open_ in (
            (40, lambda: self.openRun(keys, run, 40)),
            (8, lambda: opened(keys, earlier[1:], 8)),
            (7, lambda: opened(keys, earlier, 8)),
            (7, lambda: opened(keys, run, 40)),
        ):
            open_()
            self.assertEqual(lowest, keys.lowest)

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(SUITES),
        st.one_of(st.integers(0, 1 << 40), st.integers((1 << 16) - 70, 1 << 16)),
        st.integers(1, 64),
        st.integers(4, 40),
        st.integers(0, 1000),
        st.booleans(),
        st.integers(0, 1),
    )
    def test_whatWeSealIsOpened(
        self, suite: CipherSuite, number: int, count: int, size: int, gap: int, spin: bool, phase: int
    ) -> None:
        keys, _ = contexts(suite, phase)
        payloads = [random.Random(each).randbytes(size) for each in range(count)]
        found = self.openRun(keys, sealed(keys, number, payloads, spin), max(0, number - gap))
        self.assertEqual((0x40 | spin << 5 | phase << 2 | 1, number, payloads), found)

    def test_whateverIsNotSoIsLeft(self) -> None:
        keys, theirs = contexts(SUITES[0])
        other, _ = contexts(SUITES[0], 1)
        payloads = [b"payload"] * 4
        run = sealed(keys, 10, payloads)
        stray = sealed(keys, 12, [b"payload"])
        self.assertIsNotNone(self.openRun(keys, run, 10))
        self.assertIsNone(self.openRun(keys, run, 11))  # may have come before
        self.assertIsNone(self.openRun(keys, run[:1] + run[2:], 10))
        self.assertIsNone(self.openRun(keys, run[::-1], 10))
        self.assertIsNone(self.openRun(keys, [*run, *stray], 10))
        self.assertIsNone(self.openRun(keys, sealed(other, 10, payloads), 10))
        self.assertIsNone(self.openRun(keys, run[:3] + sealed(keys, 13, [b"payload"], True), 10))
        longer = [theirs.encrypt_packet(b"\x42" + CID + each.to_bytes(3), b"payload", each) for each in (10, 11)]
        self.assertIsNone(self.openRun(keys, longer, 10))
        reserved = [theirs.encrypt_packet(b"\x49" + CID + each.to_bytes(2), b"payload", each) for each in (10, 11)]
        self.assertIsNone(self.openRun(keys, reserved, 10))

    def test_aForgedByteAnywhereLeavesAllOfIt(self) -> None:
        keys, _ = contexts(SUITES[0])
        good = sealed(keys, 10, [b"payload"] * 2)
        for which, index in itertools.product(range(2), [0, *range(1 + len(CID), len(good[0]))]):
            forged = [bytearray(each) for each in good]
            forged[which][index] ^= 1
            self.assertIsNone(self.openRun(keys, [bytes(each) for each in forged], 10), (which, index))


class NumberTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from((8, 16, 24, 32)), st.integers(0, (1 << 62) - 1), st.integers(0, (1 << 32) - 1))
    def test_numbersAreDecodedAsTheRfcDoes(self, bits: int, expected: int, truncated: int) -> None:
        """RFC 9000 §A.3, as aioquic has it."""
        truncated &= (1 << bits) - 1
        self.assertEqual(decode_packet_number(truncated, bits, expected), decodeNumber(truncated, bits, expected))
