"""Frames: the vectors of docs/protocol.rst, whatever the cuts, and nothing kept of what is no frame."""

import contextlib
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import Code
from socketwarp.tls.frames import (
    PAYLOAD_LIMIT,
    Event,
    Frame,
    FrameParser,
    Kind,
    MalformedFrame,
    dataHeader,
    formatAttach,
    formatClose,
    formatFrame,
)

TICKET = bytes(range(16))
#: Kinds with numbers alone, and how many.
COUNTS = {
    Kind.SESSION: 0,
    Kind.ACCEPTED: 0,
    Kind.OPEN: 1,
    Kind.FIN: 0,
    Kind.RESET: 1,
    Kind.FREE: 0,
    Kind.STOP: 3,
    Kind.ABORT: 3,
    Kind.WANT: 1,
    Kind.PING: 1,
    Kind.PONG: 1,
}
#: docs/protocol.rst's examples.
VECTORS: list[tuple[str, bytes, Event]] = [
    ("01 000000", formatFrame(Kind.SESSION), Frame(Kind.SESSION)),
    (f"02 000014 {TICKET.hex()} 00000001", formatAttach(TICKET, 1), Frame(Kind.ATTACH, (1,), TICKET)),
    ("10 000004 0000002a", formatFrame(Kind.OPEN, 42), Frame(Kind.OPEN, (42,))),
    ("11 000005 68656c6c6f", dataHeader(5) + b"hello", [b"hello"]),
    ("13 000004 00000001", formatFrame(Kind.RESET, Code.ABORTED), Frame(Kind.RESET, (1,))),
    ("21 00000c 00000007 0000002a 00000001", formatFrame(Kind.ABORT, 7, 42, 1), Frame(Kind.ABORT, (7, 42, 1))),
    ("25 000007 00000009 627965", formatClose(Code.SHUTDOWN, "bye"), Frame(Kind.CLOSE, (9,), b"bye")),
]
NUMBERS = st.integers(0, 2**32 - 1)
FRAMES = st.one_of(
    st.sampled_from(sorted(COUNTS)).flatmap(
        lambda kind: st.tuples(*[NUMBERS] * COUNTS[kind]).map(lambda numbers: Frame(kind, numbers))
    ),
    st.builds(lambda lane, ticket: Frame(Kind.ATTACH, (lane,), ticket), NUMBERS, st.binary(min_size=16, max_size=16)),
    st.builds(lambda code, text: Frame(Kind.CLOSE, (code,), text.encode()), NUMBERS, st.text(max_size=100)),
    st.binary(min_size=1, max_size=100).map(lambda data: [data]),
)


def format(event: Event) -> bytes:
    """What a parser should make `event` of."""
    if isinstance(event, list):
        data = b"".join(event)
        return dataHeader(len(data)) + data
    if event.kind is Kind.ATTACH:
        return formatAttach(event.data, *event.numbers)
    if event.kind is Kind.CLOSE:
        return formatClose(event.numbers[0], event.data.decode())
    return formatFrame(event.kind, *event.numbers)


def joined(events: list[Event]) -> list[Frame | bytes]:
    """Events, DATA that follows DATA being one, since its frames mean nothing."""
    result: list[Frame | bytes] = []
    for event in events:
        if isinstance(event, Frame):
            result.append(event)
        elif result and isinstance(result[-1], bytes):
            result[-1] += b"".join(event)
        else:
            result.append(b"".join(event))
    return result


class FrameTests(SynchronousTestCase):
    def test_theBytesAreThoseOfTheManual(self) -> None:
        for text, formatted, event in VECTORS:
            self.assertEqual(bytes.fromhex(text), formatted)
            self.assertEqual([event], FrameParser().feed([formatted]))

    @given(st.lists(FRAMES, max_size=20), st.lists(st.integers(1, 60), max_size=60), st.booleans())
    def test_whateverTheCutsTheSameFramesComeOut(self, events: list[Event], cuts: list[int], together: bool) -> None:
        data = b"".join(map(format, events))
        chunks = []
        for size in cuts:
            chunks.append(data[:size])
            data = data[size:]
        chunks = [chunk for chunk in (*chunks, data) if chunk]
        parser, found = FrameParser(), list[Event]()
        for each in [chunks] if together else [[chunk] for chunk in chunks]:
            found += parser.feed(each)
        self.assertEqual(joined(events), joined(found))

    def test_bytesOfDataAreNeitherKeptNorCopied(self) -> None:
        parser = FrameParser()
        chunk = bytes(16_384)
        self.assertEqual([], parser.feed([dataHeader(10 * len(chunk))]))
        for _ in range(10):
            (pieces,) = parser.feed([chunk])
            assert isinstance(pieces, list)
            self.assertIs(chunk, pieces[0])
        self.assertEqual([Frame(Kind.FIN)], parser.feed([formatFrame(Kind.FIN)]))

    def test_aFrameOfAnotherLengthOrKindIsRefusedByItsHeader(self) -> None:
        for kind in range(256):
            for size in (0, 1, 4, 8, 12, 20, PAYLOAD_LIMIT, PAYLOAD_LIMIT + 1, 2**24 - 1):
                if kind == Kind.DATA:
                    continue
                fits = kind in COUNTS and size == 4 * COUNTS[Kind(kind)]
                fits = fits or (kind == Kind.ATTACH and size == 20)
                fits = fits or (kind == Kind.CLOSE and 4 <= size <= PAYLOAD_LIMIT)
                header = bytes((kind,)) + size.to_bytes(3)
                if fits:
                    FrameParser().feed([header])
                else:
                    self.assertRaises(MalformedFrame, FrameParser().feed, [header])

    @given(st.binary(max_size=200))
    def test_garbageIsFramesOrAnErrorOfOurs(self, data: bytes) -> None:
        with contextlib.suppress(MalformedFrame):
            FrameParser().feed([data])

    def test_aLongReasonIsCutBetweenCharacters(self) -> None:
        (frame,) = FrameParser().feed([formatClose(8, "ü" * 400)])
        assert isinstance(frame, Frame)
        self.assertEqual("ü" * 250, frame.data.decode())

    def test_theManualHasTheVectorsAndTheKinds(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "protocol.rst").read_text()
        for text, *_ in VECTORS:
            self.assertIn(f"\n{text.replace(' ', '')}", page.replace(" ", ""))
        listed = re.findall(r"^0x([0-9a-f]{2})    ``([A-Z]+)``", page.partition("\nError codes\n")[0], re.MULTILINE)
        self.assertEqual({kind.name: int(kind) for kind in Kind}, {name: int(number, 16) for number, name in listed})
