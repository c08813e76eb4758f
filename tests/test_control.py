"""A control stream as messages."""

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.control import ControlStream
from socketwarp.errors import Code, SessionLost, SocketwarpError
from socketwarp.interfaces import IStreamReceiver
from socketwarp.wire.messages import Goaway, Message, Ping, Pong, formatMessage
from tests.fakes import sessionPair, settle
from tests.talker import Talker

GOAWAY = Goaway("shutdown", 30.0)


class ControlTests(SynchronousTestCase):
    """One end, and somebody at the other."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.session, there = sessionPair(self.clock, "socketwarp/1")
        self.there = Talker(there)
        self.received: list[Message] = []
        self.broken: list[SocketwarpError] = []
        self.pings: list[None] = []
        stream = self.successResultOf(self.session.openStream())
        self.control = ControlStream(stream, self.received.append, self.broken.append, lambda: self.pings.append(None))
        settle(self.clock)

    def assertBroken(self, words: str) -> None:
        settle(self.clock)
        [error] = self.broken
        self.assertEqual(Code.MALFORMED, error.streamCode)
        self.assertIn(words, str(error))

    def test_isAReceiverAndAProducer(self) -> None:
        verifyObject(IStreamReceiver, self.control)
        verifyObject(IPushProducer, self.control)

    def test_messagesGoBothWays(self) -> None:
        self.control.send(GOAWAY)
        self.there.say(GOAWAY)
        settle(self.clock)
        self.assertEqual([GOAWAY], self.there.messages)
        self.assertEqual([GOAWAY], self.received)

    def test_pingsAreAnswered(self) -> None:
        self.there.say(Ping(7))
        settle(self.clock)
        self.assertEqual([Pong(7)], self.there.messages)
        self.assertEqual([None], self.pings)
        self.assertEqual([], self.received)

    def test_whoReadsNoAnswersGetsNoMore(self) -> None:
        """So that pings can't fill our memory; afterwards they are answered again."""
        self.control.pauseProducing()
        self.there.say(Ping(1))
        settle(self.clock)
        self.control.resumeProducing()
        self.there.say(Ping(2))
        settle(self.clock)
        self.assertEqual([Pong(2)], self.there.messages)

    def test_whatIsNoMessageBreaksIt(self) -> None:
        self.there.stream.write(b"\0\0\0\1x" + formatMessage(GOAWAY))
        self.assertBroken("not JSON")
        self.there.say(GOAWAY)
        settle(self.clock)
        self.assertEqual([], self.received)

    def test_whatIsTooLongBreaksItBeforeItHasCome(self) -> None:
        self.there.stream.write(b"\xff\xff\xff\xff")
        self.assertBroken("are allowed")

    def test_itsEndBreaksIt(self) -> None:
        self.there.stream.loseWriteConnection()
        self.assertBroken("finished")

    def test_itsResetBreaksItOnce(self) -> None:
        self.there.stream.abort(Code.ABORTED)
        self.assertBroken("the control stream")

    def test_whoDoesNotReadItBreaksIt(self) -> None:
        stream = self.there.stream
        stream.stopReading(Code.ABORTED)  # type: ignore[attr-defined]  # a FakeStream
        self.assertBroken("doesn't read")

    def test_theSessionsEndIsToldByTheSession(self) -> None:
        self.session.lose(SessionLost("timed out"))
        settle(self.clock)
        self.assertEqual([], self.broken)
