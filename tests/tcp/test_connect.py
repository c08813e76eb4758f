"""A way through an HTTP proxy, which the test plays on a real socket; the time and the polling are the test's."""

import errno
import socket
from base64 import b64decode

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ProxyFailed
from socketwarp.tcp.connect import ANSWER_LIMIT, ask, dialThrough, request
from socketwarp.tcp.poll import READABLE

from .fakes import makePoll, reset, socketPair

YES = b"HTTP/1.1 200 Connection established\r\n\r\n"


class RequestTests(SynchronousTestCase):
    """What a proxy is asked."""

    def test_aNameIsTheProxysToResolve(self) -> None:
        expected = b"CONNECT tunnel.example.net:443 HTTP/1.1\r\nHost: tunnel.example.net:443\r\n\r\n"
        self.assertEqual(expected, request(("tunnel.example.net", 443), None))

    def test_namesAndAddressesAsUrlsHaveThem(self) -> None:
        self.assertIn(b"CONNECT [2001:db8::1]:1 HTTP/1.1\r\n", request(("2001:db8::1", 1), None))
        self.assertIn(b"CONNECT xn--bcher-kva.example:1 HTTP/1.1\r\n", request(("b\u00fccher.example", 1), None))

    def test_whatCanNotBeANameIsSaid(self) -> None:
        error = self.assertRaises(ProxyFailed, request, ("x" * 64, 1), None)
        self.assertIn("can't be a host's name", str(error))

    def test_whoWeAre(self) -> None:
        head = request(("a", 1), "me:gr\u00fc\u00df: dich")
        [line] = [line for line in head.split(b"\r\n") if line.startswith(b"Proxy-Authorization: Basic ")]
        self.assertEqual("me:gr\u00fc\u00df: dich", b64decode(line.split()[-1]).decode())


class AskCase(SynchronousTestCase):
    """A connection to a proxy."""

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Another one, on which the proxy has been asked."""
        self.poll, self.reactor = makePoll()
        self.clock = Clock()
        self.ours, self.proxy = socketPair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.proxy.close)
        self.done = ask(self.poll, self.clock, self.ours, b"CONNECT\r\n\r\n", 5.0)
        self.asked = self.proxy.recv(100)

    def answer(self, *pieces: bytes) -> None:
        """What the proxy says, each piece read before the next."""
        for piece in pieces:
            if not self.reactor.readers:
                return
            self.proxy.sendall(piece)
            self.poll.doRead()

    def refusal(self, *pieces: bytes) -> str:
        """The words with which an answer is refused; nothing is left of the connection."""
        self.answer(*pieces)
        text = str(self.failureResultOf(self.done, ProxyFailed).value)
        self.assertEqual(-1, self.ours.fileno())
        self.nothingIsLeft()
        return text

    def nothingIsLeft(self) -> None:
        self.assertEqual(([], []), (self.clock.getDelayedCalls(), self.reactor.readers))


class AnswerTests(AskCase):
    """What a proxy may say."""

    def test_theConnectionIsHandedOver(self) -> None:
        """It doesn't block, and nobody watches it any more."""
        self.assertEqual(b"CONNECT\r\n\r\n", self.asked)
        self.assertNoResult(self.done)
        self.answer(YES)
        self.assertIs(self.ours, self.successResultOf(self.done))
        self.nothingIsLeft()
        self.proxy.sendall(b"the target's")
        self.assertEqual((b"the target's", False), (self.ours.recv(100), self.ours.getblocking()))

    def test_anySuccessWillDo(self) -> None:
        for head in (b"HTTP/1.0 200\r\n\r\n", b"HTTP/1.1 204 Fine\n\n", b"HTTP/1.1 200 OK\r\nVia: x\r\nA: b\r\n\r\n"):
            self.begin()
            self.answer(head)
            self.successResultOf(self.done)

    def test_anAnswerMayComeInAnyPieces(self) -> None:
        self.answer(*(bytes([byte]) for byte in YES))
        self.successResultOf(self.done)
        self.proxy.sendall(b"x")
        self.assertEqual(b"x", self.ours.recv(100))

    def test_whatComesBehindTheAnswerIsRefused(self) -> None:
        """In TLS the client speaks first, so that isn't the listener."""
        self.assertIn("bytes of its own", self.refusal(YES + b"SSH-2.0"))

    def test_authentication(self) -> None:
        """Names what to check, and says so if it is of a kind that isn't known here."""
        text = self.refusal(b'HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n')
        self.assertEqual("the proxy refuses the connection: 407 Who?: check user and password in SWC_PROXY", text)
        self.begin()
        self.assertIn("check user and password", self.refusal(b"HTTP/1.1 407\r\n\r\n"))
        self.begin()
        self.assertIn("check user and password", self.refusal(b"HTTP/1.0 401 Unauthorized\r\nServer: x\r\n\r\n"))
        self.begin()
        text = self.refusal(b"HTTP/1.1 407 No\r\nproxy-authenticate: NTLM\r\nProxy-Authenticate: Negotiate x\r\n\r\n")
        self.assertIn("it wants negotiate, ntlm, and only basic", text)

    def test_otherRefusals(self) -> None:
        for status, words in ((403, "has to allow CONNECT"), (502, "can't reach the listener"), (302, "302 Away")):
            self.begin()
            self.assertIn(words, self.refusal(b"HTTP/1.1 %d Away\r\n\r\n<html>" % status))

    def test_aStrangersWordsAreMadeFitForTheLog(self) -> None:
        text = self.refusal(b"HTTP/1.1 500 a\x1b[31m\xffb" + b"c" * 1000 + b"\r\n\r\n")
        self.assertIn("500 a?[31m\xffbccc", text)
        self.assertLess(len(text), 250)

    def test_whatIsNoProxyIsNotWaitedFor(self) -> None:
        """As soon as that can be told."""
        for answer in (b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x03", b"HTTQ", b"HTTP/1.1 what?\r\n\r\n", b"\n\n"):
            self.begin()
            self.assertIn("is no HTTP proxy", self.refusal(answer))

    def test_anAnswerIsNotReadForEver(self) -> None:
        text = self.refusal(b"HTTP/1.1 200 OK\r\n", *[b"A: " + b"b" * 4000 + b"\r\n"] * 5)
        self.assertIn(f"more than {ANSWER_LIMIT} bytes", text)

    def test_anAnswerIsNotWaitedForForEver(self) -> None:
        """However often a little of it comes."""
        self.answer(b"HTTP/1.1 200 OK\r\n")
        self.clock.advance(4.9)
        self.answer(b"A")
        self.assertNoResult(self.done)
        self.clock.advance(0.1)
        self.assertIn("within 5 s", self.refusal())

    def test_theEndOfTheConnection(self) -> None:
        self.proxy.close()
        self.poll.doRead()
        self.assertEqual("the proxy closed the connection", self.refusal())
        self.begin()
        self.answer(b"HTTP/1.1 2")
        self.proxy.close()
        self.poll.doRead()
        self.assertEqual("the proxy closed the connection within its answer", self.refusal())
        self.begin()
        reset(self.proxy)
        self.poll.doRead()
        self.assertIn("Connection reset", self.refusal())

    def test_aConnectionThatIsBrokenAlready(self) -> None:
        ours, proxy = socketPair()
        reset(proxy)
        self.assertRaises(ConnectionResetError, ours.recv, 1)
        done = ask(self.poll, Clock(), ours, b"x", 5.0)
        self.assertIn("broke", str(self.failureResultOf(done, ProxyFailed).value))

    def test_aKernelThatTakesNothing(self) -> None:
        """The request would be sent in part."""
        ours, proxy = socketPair()
        self.addCleanup(proxy.close)
        done = ask(self.poll, Clock(), ours, b"x" * (64 << 20), 5.0)
        self.assertIn("doesn't take", str(self.failureResultOf(done, ProxyFailed).value))

    def test_cancellingLeavesNothing(self) -> None:
        [question] = self.poll._owners.values()
        self.done.cancel()
        self.failureResultOf(self.done, CancelledError)
        self.assertEqual(-1, self.ours.fileno())
        self.nothingIsLeft()
        question.ready(READABLE)

    def test_aFailureOfWhoWaitsIsNotTheProxys(self) -> None:
        [question] = self.poll._owners.values()
        question.failed(Failure(ZeroDivisionError()))
        question.ready(READABLE)
        self.answer(YES)
        self.successResultOf(self.done)

    @given(st.binary(max_size=60), st.integers(0, len(YES)), st.integers(1, 50))
    def test_anyBytes(self, noise: bytes, place: int, size: int) -> None:
        """In an answer's place, or within a good one: they end in a connection or in words."""
        answer = YES[:place] + noise + YES[place:]
        self.begin()
        self.answer(*(answer[at : at + size] for at in range(0, len(answer), size)))
        self.proxy.close()
        if self.reactor.readers:
            self.poll.doRead()
        self.assertTrue(self.done.called)
        self.done.addCallbacks(socket.socket.close, lambda failure: failure.trap(ProxyFailed))
        self.successResultOf(self.done)
        self.nothingIsLeft()


class DialThroughTests(SynchronousTestCase):
    """Both steps."""

    def setUp(self) -> None:
        self.poll, self.reactor = makePoll()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.server.close)

    def dial(self, name: str = "listener") -> Deferred[socket.socket]:
        return dialThrough(self.poll, Clock(), self.server.getsockname(), (name, 443), "me:x", 5.0)

    def test_theProxyIsConnectedToAndAsked(self) -> None:
        done = self.dial()
        proxy, _ = self.server.accept()
        self.addCleanup(proxy.close)
        self.assertIn(b"CONNECT listener:443 HTTP/1.1\r\n", asked := proxy.recv(1000))
        self.assertIn(b"Proxy-Authorization: Basic bWU6eA==\r\n", asked)
        proxy.sendall(YES)
        self.poll.doRead()
        self.successResultOf(done).close()

    def test_aProxyThatIsNotThere(self) -> None:
        self.server.close()
        self.server = socket.create_server(("127.0.0.1", 0))
        place = self.server.getsockname()
        self.server.close()
        done = dialThrough(self.poll, Clock(), place, ("listener", 443), None, 5.0)
        self.assertEqual(errno.ECONNREFUSED, self.failureResultOf(done, OSError).value.errno)

    def test_aNameThatIsNoneIsNotAskedFor(self) -> None:
        self.failureResultOf(self.dial("x" * 64), ProxyFailed)
        self.assertEqual([], self.reactor.readers)
