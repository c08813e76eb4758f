"""The promises of every carrier, kept by this one: see `tests.carriers`."""

from twisted.trial.unittest import SynchronousTestCase

from ..carriers import Ends, SessionPromises, StreamPromises, runAnyOrder
from .rig import Rig


def makeEnds(buffer: int | None = None) -> Ends:
    """:param buffer: bytes that the sockets' buffers have, as far as the kernel does as it is told."""
    rig = Rig(buffer=buffer)
    listener, connector = rig.pair()
    return Ends(listener, connector, rig.run, rig.wait, rig.cut, rig.over, rig.release)


class TlsSessionTests(SessionPromises, SynchronousTestCase):
    carrier = "tls"

    def newEnds(self) -> Ends:
        return makeEnds()


class TlsStreamTests(StreamPromises, SynchronousTestCase):
    carrier = "tls"

    def newEnds(self) -> Ends:
        return makeEnds()


class AnyOrderTests(SynchronousTestCase):
    """Bytes of one visitor never reach the next."""

    def test_streamsInAnyOrder(self) -> None:
        runAnyOrder(makeEnds, 60)

    def test_streamsInAnyOrderThroughSmallBuffers(self) -> None:
        """So that writes are cut anywhere."""
        runAnyOrder(lambda: makeEnds(4096), 40)
