"""The bytes that we define: exactly these, and nothing else is taken for them."""

import json
import re
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import (
    Code,
    LimitReached,
    MalformedMessage,
    MalformedPreamble,
    PortUnavailable,
    SocketwarpError,
    TargetDenied,
    TargetError,
    TargetRefused,
    TargetUnreachable,
)
from socketwarp.interfaces import Address, Piece
from socketwarp.wire.cutting import Immediate, Parser
from socketwarp.wire.dialect import DIALECTS, Dialled
from socketwarp.wire.documents import TEXT_LIMIT, Document
from socketwarp.wire.messages import (
    MESSAGE_LIMIT,
    NUMBER_LIMIT,
    Finished,
    Goaway,
    Hello,
    Message,
    MessageParser,
    Ping,
    Pong,
    Refused,
    Welcome,
    formatMessage,
)
from socketwarp.wire.preamble import (
    HEADER_SIZE,
    HOST_LIMIT,
    ID_LIMIT,
    Preamble,
    Preamble29Parser,
    formatPreamble29,
    parsePreamble29,
)
from socketwarp.wire.proxy import formatProxyHeader
from socketwarp.wire.streams import DOCUMENT_LIMIT, REFUSALS

T = TypeVar("T")

OURS = DIALECTS["socketwarp/1"]
ORIGINAL = DIALECTS["hq-29"]


def padded(text: bytes) -> bytes:
    """As the original sends it."""
    return text + bytes(HEADER_SIZE - len(text))


def framed(document: object, size: str = "!H") -> bytes:
    """JSON of whatever it is, with its length."""
    encoded = json.dumps(document).encode()
    return struct.pack(size, len(encoded)) + encoded


def message(document: object) -> bytes:
    """As on the control stream."""
    return framed(document, "!I")


def whole(parser: Parser[T], data: bytes) -> tuple[T, bytes]:
    """What a parser makes of all the bytes at once: its result, and the rest."""
    taken = parser.feed([data] if data else [])
    assert taken is not None, "not complete"
    return taken[0], b"".join(taken[1])


def pieces(data: bytes, cuts: Sequence[int]) -> list[Piece]:
    """`data` cut at those places, in pieces of all the kinds there are."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    kinds = (bytes, bytearray, memoryview)
    parts = [data[one:other] for one, other in pairwise(places) if one < other]
    return [kinds[number % 3](part) for number, part in enumerate(parts)]


def outcome(parser: Parser[Any], groups: Sequence[Sequence[Piece]]) -> object:  # Any: whatever it parses
    """Result and rest, or the error's type, or `None`: what comes of feeding groups of pieces one after the other."""
    rest = b""
    result: object = None
    try:
        for group in [[], *groups]:
            if result is not None:
                rest += b"".join(group)
                continue
            if (taken := parser.feed(group)) is not None:
                result, rest = taken[0], b"".join(taken[1])
                assert all(taken[1]), "an empty piece"
    except SocketwarpError as error:
        return type(error), str(error)
    return result, rest


cutting = st.lists(st.integers(0, 5000), max_size=6)
names = st.from_regex(r"[a-z0-9]([a-z0-9.\-]{0,100}[a-z0-9])?", fullmatch=True)
hosts = st.one_of(names, st.ip_addresses().map(str), st.just("bücher.example"))
ports = st.integers(1, 65535)
ids = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P"], exclude_characters="|"), min_size=1, max_size=128
)
addresses = st.tuples(st.ip_addresses().map(str), ports)
preambles = st.builds(Preamble, ids, hosts, ports, st.none() | addresses, st.none() | ports)


class OriginalHeaderTests(SynchronousTestCase):
    """The original's 1,024 bytes."""

    def test_theBytesAreTheOriginals(self) -> None:
        self.assertEqual(padded(b"3-17|db.internal:5432"), formatPreamble29("3-17", "db.internal", 5432))
        self.assertEqual(padded(b"0-1|192.0.2.1:80"), formatPreamble29("0-1", "192.0.2.1", 80))

    def test_anIPv6HostIsSentInBrackets(self) -> None:
        self.assertEqual(padded(b"3-17|[2001:db8::1]:80"), formatPreamble29("3-17", "2001:db8::1", 80))

    def test_bothFormsOfAnIPv6TargetAreUnderstood(self) -> None:
        for target in (b"[2001:db8::1]:80", b"2001:db8::1:80"):
            self.assertEqual(Preamble("3-17", "2001:db8::1", 80), parsePreamble29(padded(b"3-17|" + target)))

    def test_whatIsNoPreambleIsMalformed(self) -> None:
        for header in (
            b"",
            b"no bar",
            b"1|a:80|",
            b"1|2|a:80",
            b"1|a",
            b"1|a:",
            b"1|:80",
            b"|a:80",
            b"1|a:0",
            b"1|a:65536",
            b"1|a:123456",
            b"1|a:+80",
            b"1|a:8_0",
            b"1|a: 80",
            "1|a:٨٠".encode(),
            b"1|a\0b:80",
            b"1|a\nb:80",
            b"1|a b:80",
            b"1|a/b:80",
            b"1\r|a:80",
            b"1|\xff\xfe:80",
            b"1|[::1:80",
            b"1|[a]:80",
            b"1|[]:80",
            b"1|::1]:80",
            b"1|[[::1]]:80",
            b"1|x::1:80",
            b"1|" + b"a" * (HOST_LIMIT + 1) + b":80",
            b"1" * (ID_LIMIT + 1) + b"|a:80",
            b"x" * HEADER_SIZE,
        ):
            with self.assertRaises(MalformedPreamble, msg=repr(header)):
                parsePreamble29(padded(header))

    def test_whatCannotBeSaidIsNotFormatted(self) -> None:
        for connectionId, host, port in (
            ("1|2", "a", 80),
            ("", "a", 80),
            ("1", "", 80),
            ("1", "a", 0),
            ("1", "a", 65536),
            ("1", "a b", 80),
            ("1", "[::1]", 80),
            ("1", "a:b", 80),
            ("1", "\ud800", 80),
            ("ŵ" * ID_LIMIT, "😀" * HOST_LIMIT, 65535),
        ):
            with self.assertRaises(MalformedPreamble, msg=repr((connectionId, host, port))):
                formatPreamble29(connectionId, host, port)

    def test_errorsDoNotRepeatWhatThePeerSent(self) -> None:
        error = self.assertRaises(MalformedPreamble, parsePreamble29, padded(b"1|evil\x1b[2J:80"))
        self.assertNotIn("evil", str(error))

    def test_theLongestHostAndIdFit(self) -> None:
        header = formatPreamble29("1" * ID_LIMIT, "a" * HOST_LIMIT, 65535)
        self.assertEqual(HEADER_SIZE, len(header))

    @given(ids, hosts, ports)
    def test_whatIsFormattedIsParsedBack(self, connectionId: str, host: str, port: int) -> None:
        header = formatPreamble29(connectionId, host, port)
        self.assertEqual((Preamble(connectionId, host, port), b""), whole(Preamble29Parser(), header))

    @given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE) | st.binary(max_size=60).map(padded))
    def test_anyBytesAreAPreambleOrMalformed(self, header: bytes) -> None:
        try:
            preamble = parsePreamble29(header)
        except MalformedPreamble:
            return
        self.assertEqual(
            preamble, parsePreamble29(formatPreamble29(preamble.connectionId, preamble.host, preamble.port))
        )


class PreambleTests(SynchronousTestCase):
    """The record checks itself, whoever makes it."""

    def test_aVisitorAndAnEntryPortMustBePossible(self) -> None:
        for visitor, entryPort in ((("a b", 1), 1), (("192.0.2.1", 0), 1), (None, 0), (None, 65536)):
            with self.assertRaises(MalformedPreamble):
                Preamble("1", "a", 80, visitor, entryPort)


class CuttingTests(SynchronousTestCase):
    """Bytes come in any pieces."""

    @given(st.binary(max_size=2 * HEADER_SIZE), cutting, cutting)
    def test_theCutDoesNotChangeWhatAnyBytesMean(self, data: bytes, one: list[int], other: list[int]) -> None:
        for dialect in DIALECTS.values():
            for make in (dialect.preambleParser, dialect.answerParser):
                together = outcome(make(), [pieces(data, one)])
                apart = outcome(make(), [[piece] for piece in pieces(data, other)])
                self.assertEqual(together, apart)

    @given(preambles, st.binary(max_size=100), cutting)
    def test_aPreambleIsFoundInAnyCutAndTheRestIsUntouched(
        self, preamble: Preamble, rest: bytes, cuts: list[int]
    ) -> None:
        data = OURS.formatPreamble(preamble) + rest
        self.assertEqual((preamble, rest), outcome(OURS.preambleParser(), [[piece] for piece in pieces(data, cuts)]))
        data = ORIGINAL.formatPreamble(preamble) + rest
        bare = Preamble(preamble.connectionId, preamble.host, preamble.port)
        self.assertEqual((bare, rest), outcome(ORIGINAL.preambleParser(), [[piece] for piece in pieces(data, cuts)]))

    def test_noMoreThanWhatIsNeededIsKept(self) -> None:
        parser = Preamble29Parser()
        self.assertIsNone(parser.feed([bytes(HEADER_SIZE - 1)]))
        self.assertIsNone(parser.feed([]))

    def test_aParserOfNothingHasItsResultAtOnce(self) -> None:
        self.assertEqual(("result", []), Immediate("result").feed([]))
        self.assertEqual(("result", [b"rest"]), Immediate("result").feed([b"rest"]))


class VectorTests(SynchronousTestCase):
    """Frozen: a change here is another protocol. docs/protocol.rst shows the same bytes."""

    vectors: tuple[tuple[Preamble, bytes], ...] = (
        (
            Preamble("3-17", "db.internal", 5432, ("192.0.2.7", 51000), 15432),
            b'\x00j{"id":"3-17","host":"db.internal","port":5432,'
            b'"visitor":"192.0.2.7","visitorPort":51000,"entryPort":15432}',
        ),
        (Preamble("3-17", "::1", 80), b'\x00${"id":"3-17","host":"::1","port":80}'),
        (
            Preamble("probe-1", "db.lan", 22, isTimed=True),
            b'\x007{"id":"probe-1","host":"db.lan","port":22,"timed":true}',
        ),
        (Preamble("1", "bücher.example", 80), b'\x00-{"id":"1","host":"b\xc3\xbccher.example","port":80}'),
    )

    def test_preambles(self) -> None:
        for preamble, encoded in self.vectors:
            self.assertEqual(encoded, OURS.formatPreamble(preamble))
            self.assertEqual((preamble, b""), whole(OURS.preambleParser(), encoded))

    def test_answers(self) -> None:
        good = b'\x00%{"ok":true,"dialled":"10.0.0.5:5432"}'
        self.assertEqual(good, OURS.formatDialled(Dialled("10.0.0.5:5432")))
        self.assertEqual((Dialled("10.0.0.5:5432"), b""), whole(OURS.answerParser(), good))
        timed = b'\x00P{"ok":true,"dialled":"10.0.0.5:22","resolveSeconds":0.25,"connectSeconds":0.001}'
        self.assertEqual(timed, OURS.formatDialled(Dialled("10.0.0.5:22", 0.25, 0.001)))
        self.assertEqual((Dialled("10.0.0.5:22", 0.25, 0.001), b""), whole(OURS.answerParser(), timed))
        bad = b'\x00A{"error":"refused","text":"10.0.0.5:5432 refused the connection"}'
        self.assertEqual(bad, OURS.formatRefusal(TargetRefused("10.0.0.5:5432 refused the connection")))
        error = self.assertRaises(TargetRefused, OURS.answerParser().feed, [bad])
        self.assertEqual("10.0.0.5:5432 refused the connection", str(error))

    def test_messages(self) -> None:
        for known, encoded in (
            (
                Hello("socketwarp", "0.1.0", "5f2c9d", 10000, ("goaway",)),
                b'\0\0\0x{"type":"hello","software":"socketwarp","version":"0.1.0","instance":"5f2c9d",'
                b'"streamLimit":10000,"features":["goaway"]}',
            ),
            (
                Welcome("swc-1", "9a41", 50.0, 60.0, (), 1900000000),
                b'\0\0\0r{"type":"welcome","uid":"swc-1","session":"9a41","keepAlive":50.0,"idle":60.0,'
                b'"features":[],"notAfter":1900000000}',
            ),
            (
                Welcome("swc-1", "9a41", 4.0, 60.0, (), None, "000102030405060708090a0b0c0d0e0f"),
                b'\0\0\0\x87{"type":"welcome","uid":"swc-1","session":"9a41","keepAlive":4.0,"idle":60.0,'
                b'"features":[],"ticket":"000102030405060708090a0b0c0d0e0f"}',
            ),
            (
                Welcome("swc-1", "9a41", 4.0, 60.0, (), None, "000102030405060708090a0b0c0d0e0f", 1000),
                b'\0\0\0\x94{"type":"welcome","uid":"swc-1","session":"9a41","keepAlive":4.0,"idle":60.0,'
                b'"features":[],"ticket":"000102030405060708090a0b0c0d0e0f","lanes":1000}',
            ),
            (
                Refused("verifier-refused", "Certificate is revoked"),
                b'\0\0\0N{"type":"refused","reason":"verifier-refused","text":"Certificate is revoked"}',
            ),
            (
                Refused("verifier-fault", "try later", 30.0),
                b'\0\0\0Q{"type":"refused","reason":"verifier-fault","text":"try later","retryAfter":30.0}',
            ),
            (
                Goaway("superseded", 0.0, "another session took over"),
                b'\0\0\0X{"type":"goaway","reason":"superseded","seconds":0.0,"text":"another session took over"}',
            ),
            (Finished(), b'\0\0\0\x13{"type":"finished"}'),
            (Ping(7), b'\0\0\0\x1a{"type":"ping","number":7}'),
            (Pong(7), b'\0\0\0\x1a{"type":"pong","number":7}'),
        ):
            self.assertEqual(encoded, formatMessage(known))
            self.assertEqual([known], MessageParser().feed([encoded]))

    def test_proxyHeaders(self) -> None:
        four: tuple[Address, Address] = ("192.0.2.7", 51000), ("198.51.100.1", 15432)
        six: tuple[Address, Address] = ("2001:db8::7", 51000), ("2001:db8::1", 15432)
        self.assertEqual(b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 15432\r\n", formatProxyHeader(1, *four))
        self.assertEqual(b"PROXY TCP6 2001:db8::7 2001:db8::1 51000 15432\r\n", formatProxyHeader(1, *six))
        self.assertEqual("0d0a0d0a000d0a515549540a2111000cc0000207c6336401c7383c48", formatProxyHeader(2, *four).hex())
        self.assertEqual(
            "0d0a0d0a000d0a515549540a2121002420010db800000000000000000000000720010db8000000000000000000000001c7383c48",
            formatProxyHeader(2, *six).hex(),
        )


class PageTests(SynchronousTestCase):
    """docs/protocol.rst."""

    def setUp(self) -> None:
        self.page = (Path(__file__).parent.parent / "docs" / "protocol.rst").read_text()

    def test_itsFramesHaveTheLengthsTheySay(self) -> None:
        frames = re.findall(r"^    ((?:[0-9a-f]{2} )+)(\{.*\})$", self.page, re.MULTILINE)
        self.assertEqual(16, len(frames))
        for length, document in frames:
            self.assertEqual(int.from_bytes(bytes.fromhex(length), "big"), len(document.encode()), document)
            self.assertEqual(bytes.fromhex(length) + document.encode(), self.formatted(bytes.fromhex(length), document))

    def formatted(self, length: bytes, document: str) -> bytes:
        """What the document is read as, formatted again."""
        encoded = length + document.encode()
        if len(length) == 4:
            return b"".join(map(formatMessage, MessageParser().feed([encoded])))
        if '"id"' in document:
            return OURS.formatPreamble(whole(OURS.preambleParser(), encoded)[0])
        try:
            return OURS.formatDialled(whole(OURS.answerParser(), encoded)[0])
        except SocketwarpError as error:
            return OURS.formatRefusal(error)

    def test_itListsEveryCodeWithItsNumber(self) -> None:
        section = self.page.partition("\nError codes\n")[2]
        listed = re.findall(r"^0x([0-9a-f]{2})    ``([A-Z_]+)``", section, re.MULTILINE)
        self.assertEqual({code.name: int(code) for code in Code}, {name: int(number, 16) for number, name in listed})

    def test_itListsEveryRefusal(self) -> None:
        self.assertEqual([], [code for code in REFUSALS if f"``{code}``" not in self.page])


class OurStreamTests(SynchronousTestCase):
    """Preambles and answers of socketwarp/1."""

    def test_fieldsThatAreUnknownOrNullAreIgnored(self) -> None:
        preamble = {"id": "1", "host": "a", "port": 80, "visitor": None, "entryPort": None, "colour": {"deep": [1]}}
        self.assertEqual((Preamble("1", "a", 80), b""), whole(OURS.preambleParser(), framed(preamble)))

    def test_whatIsNoPreambleIsMalformed(self) -> None:
        good = {"id": "1", "host": "a", "port": 80}
        documents: tuple[object, ...] = (
            [],
            None,
            1,
            {},
            {**good, "id": 1},
            {**good, "id": ""},
            {**good, "id": "a b"},
            {**good, "id": "1|2"},
            {**good, "host": None},
            {**good, "host": ["a"]},
            {**good, "host": "a" * 254},
            {**good, "host": "\ud800"},
            {**good, "port": "80"},
            {**good, "port": True},
            {**good, "port": 80.0},
            {**good, "port": 0},
            {**good, "port": 1 << 70},
            {**good, "port": float("nan")},
            {**good, "visitor": "192.0.2.1"},
            {**good, "visitor": "192.0.2.1", "visitorPort": -1},
            {**good, "entryPort": "15432"},
        )
        for document in documents:
            with self.assertRaises(MalformedPreamble, msg=repr(document)):
                whole(OURS.preambleParser(), framed(document))

    def test_whatIsNoJsonIsMalformed(self) -> None:
        for encoded in (b"", b"{", b"\xff", b"[" * 4000, b'{"id":Infinity}', b"\xef\xbb\xbf{}"):
            with self.assertRaises(MalformedPreamble, msg=repr(encoded)):
                whole(OURS.preambleParser(), struct.pack("!H", len(encoded)) + encoded)

    def test_aLengthBeyondTheLimitIsRefusedBeforeItsBytesCome(self) -> None:
        for dialectsParser in (OURS.preambleParser, OURS.answerParser):
            self.assertIsNone(dialectsParser().feed([struct.pack("!H", DOCUMENT_LIMIT)]))
            self.assertRaises(MalformedPreamble, dialectsParser().feed, [struct.pack("!H", DOCUMENT_LIMIT + 1)])

    def test_whatWouldBeTooLongIsNotFormatted(self) -> None:
        self.assertRaises(MalformedPreamble, OURS.formatDialled, Dialled("a" * DOCUMENT_LIMIT))

    def test_everyRefusalArrivesAsWhatItWas(self) -> None:
        for code, refusal in REFUSALS.items():
            sent = OURS.formatRefusal(refusal(f"because of {code}"))
            error = self.assertRaises(refusal, OURS.answerParser().feed, [sent])
            self.assertEqual(f"because of {code}", str(error))
        self.assertEqual({"denied", "unresolved", "refused", "unreachable", "timed-out", "limit"}, set(REFUSALS))

    def test_anyOtherErrorOfTheConnectorIsAnUnreachableTarget(self) -> None:
        sent = OURS.formatRefusal(PortUnavailable("internals"))
        self.assertRaises(TargetUnreachable, OURS.answerParser().feed, [sent])

    def test_aCodeOfALaterVersionIsATargetError(self) -> None:
        error = self.assertRaises(
            TargetError, OURS.answerParser().feed, [framed({"error": "overbooked", "text": "so"})]
        )
        self.assertIs(TargetError, type(error))

    def test_theTextOfARefusalIsMadeFitForALog(self) -> None:
        sent = framed({"error": "denied", "text": "a\nb\x1b[2J" + "x" * 2000})
        error = self.assertRaises(TargetDenied, OURS.answerParser().feed, [sent])
        self.assertEqual("a?b?[2J", str(error)[:7])
        self.assertEqual(TEXT_LIMIT, len(str(error)))

    def test_theLongestTextFitsAnAnswer(self) -> None:
        for text in ("😀" * 5000, '"' * 5000, "\ud800" * 5000):
            self.assertRaises(LimitReached, OURS.answerParser().feed, [OURS.formatRefusal(LimitReached(text))])

    def test_whatIsNoAnswerIsMalformed(self) -> None:
        for document in ({}, {"ok": 1}, {"ok": "true"}, {"ok": False}, {"error": 5}, {"ok": True, "dialled": 5}):
            with self.assertRaises(MalformedPreamble, msg=repr(document)):
                whole(OURS.answerParser(), framed(document))


class OriginalDialectTests(SynchronousTestCase):
    """What the original's dialect has no words for."""

    def test_noAnswerIsSentAndNoneIsWaitedFor(self) -> None:
        self.assertEqual(b"", ORIGINAL.formatDialled(Dialled("192.0.2.1:80")))
        self.assertEqual(b"", ORIGINAL.formatRefusal(TargetRefused("refused")))
        self.assertEqual((Dialled(), b"target's bytes"), whole(ORIGINAL.answerParser(), b"target's bytes"))

    def test_oursIsPreferredAndHasAControlStream(self) -> None:
        self.assertEqual(["socketwarp/1", "hq-29"], list(DIALECTS))
        self.assertEqual([True, False], [dialect.hasControl for dialect in DIALECTS.values()])
        self.assertEqual(list(DIALECTS), [dialect.alpn for dialect in DIALECTS.values()])


words = st.from_regex(r"[!-~]{1,20}", fullmatch=True)
seconds = st.floats(0, 86400)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=50)
features = st.lists(words, max_size=5).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, words, words, words, st.integers(1, 100000), features),
    st.builds(Welcome, texts, words, seconds, seconds, features, st.none() | st.integers(0, 2**33)),
    st.builds(Refused, words, texts, st.none() | seconds),
    st.builds(Goaway, words, seconds, texts),
    st.builds(Ping, st.integers(0, NUMBER_LIMIT)),
    st.builds(Pong, st.integers(0, NUMBER_LIMIT)),
)
anyJson = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
likelyNames = st.sampled_from(
    ["type", "critical", "uid", "session", "reason", "seconds", "text", "features", "software", "number"]
)
likelyJson = st.dictionaries(
    likelyNames, st.sampled_from(["hello", "welcome", "refused", "goaway", "ping", "pong"]) | anyJson
)


class ControlTests(SynchronousTestCase):
    """Messages of the control stream."""

    @given(st.lists(messages, max_size=5), cutting)
    def test_messagesArriveInAnyCut(self, sent: list[Message], cuts: list[int]) -> None:
        parser = MessageParser()
        received: list[Message] = []
        for piece in pieces(b"".join(map(formatMessage, sent)), cuts):
            received += parser.feed([piece])
        self.assertEqual(sent, received)

    @given(st.lists(st.binary(max_size=50) | (anyJson | likelyJson).map(message), max_size=4), cutting)
    def test_anyBytesAreMessagesOrMalformed(self, parts: list[bytes], cuts: list[int]) -> None:
        parser = MessageParser()
        try:
            for piece in pieces(b"".join(parts), cuts):
                parser.feed([piece])
        except MalformedMessage:
            pass

    def test_unknownTypesAreIgnoredUnlessTheyAreCritical(self) -> None:
        known = formatMessage(Goaway("shutdown", 30.0))
        for document in (
            {"type": "weather"},
            {"type": "weather", "critical": False},
            {"type": "weather", "critical": 1},
        ):
            self.assertEqual([Goaway("shutdown", 30.0)], MessageParser().feed([message(document) + known]))
        with self.assertRaises(MalformedMessage):
            MessageParser().feed([message({"type": "weather", "critical": True})])

    def test_unknownFieldsAreIgnored(self) -> None:
        document = {"type": "goaway", "reason": "shutdown", "seconds": 30, "colour": "red", "critical": True}
        self.assertEqual([Goaway("shutdown", 30.0)], MessageParser().feed([message(document)]))

    def test_whatIsNoMessageIsMalformed(self) -> None:
        hello = {"type": "hello", "software": "s", "version": "1", "instance": "i", "streamLimit": 1}
        goaway = {"type": "goaway", "reason": "shutdown", "seconds": 1}
        documents: tuple[object, ...] = (
            [],
            {},
            {"type": 5},
            {**hello, "streamLimit": 0},
            {**hello, "streamLimit": 1e9},
            {**hello, "instance": None},
            {**hello, "features": "all"},
            {**hello, "features": [1]},
            {**hello, "features": ["x"] * 65},
            {**hello, "features": ["x" * 257]},
            {**goaway, "seconds": -1},
            {**goaway, "seconds": True},
            {**goaway, "seconds": "1"},
            {**goaway, "seconds": 1e400},
            {**goaway, "text": 5},
            {"type": "ping"},
            {"type": "pong", "number": -1},
            {"type": "ping", "number": NUMBER_LIMIT + 1},
        )
        for document in documents:
            with self.assertRaises(MalformedMessage, msg=repr(document)):
                MessageParser().feed([message(document)])

    def test_aLengthBeyondTheLimitIsRefusedBeforeItsBytesCome(self) -> None:
        self.assertEqual([], MessageParser().feed([struct.pack("!I", MESSAGE_LIMIT)]))
        self.assertRaises(MalformedMessage, MessageParser().feed, [struct.pack("!I", MESSAGE_LIMIT + 1)])
        self.assertRaises(MalformedMessage, MessageParser().feed, [b"\xff\xff\xff\xff"])

    def test_whatWouldBeTooLongIsNotFormatted(self) -> None:
        self.assertRaises(MalformedMessage, formatMessage, Hello("s", "1", "i", 1, ("x" * MESSAGE_LIMIT,)))

    def test_textsForPeopleAreCutAndCleaned(self) -> None:
        self.assertEqual("a?b", Refused("denied", "a\tb").text)
        self.assertEqual(TEXT_LIMIT, len(Goaway("shutdown", 1.0, "x" * 5000).text))


class DocumentTests(SynchronousTestCase):
    """Fields by their names."""

    def test_anErrorNamesTheField(self) -> None:
        error = self.assertRaises(MalformedMessage, Document(b'{"a": 1}', MalformedMessage).word, "a")
        self.assertIn("'a'", str(error))


class ProxyTests(SynchronousTestCase):
    """PROXY protocol headers, read by Twisted's parsers."""

    @given(addresses, addresses, st.sampled_from([1, 2]))
    def test_twistedReadsWhatWeWrite(
        self, source: Address, destination: Address, version: Any
    ) -> None:  # Any: a Literal
        parser = V1Parser() if version == 1 else V2Parser()
        info, rest = parser.feed(formatProxyHeader(version, source, destination) + b"the visitor's bytes")
        assert info is not None
        self.assertEqual(b"the visitor's bytes", rest)
        for (host, port), read in ((source, info.source), (destination, info.destination)):
            assert isinstance(read, IPv4Address | IPv6Address)
            address = ip_address(read.host)
            mapped = getattr(address, "ipv4_mapped", None)
            self.assertIn(ip_address(host), (address, mapped))
            self.assertEqual(port, read.port)

    def test_aMixedPairIsWrittenAsIPv6(self) -> None:
        header = formatProxyHeader(1, ("192.0.2.7", 51000), ("2001:db8::1", 15432))
        self.assertTrue(header.startswith(b"PROXY TCP6 "))

    def test_theScopeOfALinkLocalAddressIsLeftOut(self) -> None:
        header = formatProxyHeader(1, ("fe80::1%eth0", 51000), ("fe80::2%eth0", 15432))
        self.assertEqual(b"PROXY TCP6 fe80::1 fe80::2 51000 15432\r\n", header)
