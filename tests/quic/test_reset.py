"""Stateless resets: tokens that outlive the process, answers that can't loop."""

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.reset import MAXIMUM_SIZE, MINIMUM_SIZE, RESETS_PER_SECOND, ResetKey, isReset

from ..certs import newKey

CID = bytes(range(8))


class ResetTests(SynchronousTestCase):
    def test_theSameKeyGivesTheSameTokens(self) -> None:
        key = newKey()
        self.assertEqual(ResetKey(key).token(CID), ResetKey(key).token(CID))
        self.assertNotEqual(ResetKey(key).token(CID), ResetKey(newKey()).token(CID))
        self.assertNotEqual(ResetKey(key).token(CID), ResetKey(key).token(CID[::-1]))
        self.assertEqual(16, len(ResetKey(key).token(CID)))

    def test_anAnswerLooksLikeAPacketAndIsShorterThanWhatItAnswers(self) -> None:
        """RFC 9000 §10.3, §10.3.3."""
        key = ResetKey(newKey())
        for size in (1, 21, 22, 30, 41, 42, 43, 1200):
            answer = key.answer(memoryview(bytes(size)), CID, 5.0)
            if size <= MINIMUM_SIZE:
                self.assertIsNone(answer)
                continue
            assert answer is not None
            self.assertEqual((min(size - 1, MAXIMUM_SIZE), 0x40), (len(answer), answer[0] & 0xC0))
            self.assertTrue(isReset(memoryview(answer), key.token(CID)))

    def test_soManyASecondAndNoMore(self) -> None:
        key = ResetKey(newKey())
        answers = [key.answer(memoryview(bytes(50)), CID, 5.5) for _ in range(RESETS_PER_SECOND + 5)]
        self.assertEqual(5, answers.count(None))
        self.assertIsNotNone(key.answer(memoryview(bytes(50)), CID, 6.0))

    def test_otherDatagramsAreNoResets(self) -> None:
        token = ResetKey(newKey()).token(CID)
        for datagram, expected in ((bytes(50), token), (bytes(4) + token, token), (bytes(40), b"")):
            self.assertFalse(isReset(memoryview(datagram), expected))
