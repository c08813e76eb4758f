"""Received packet numbers, against a set."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.numbers import ReceivedNumbers


class ReceivedNumbersTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(0, 120), max_size=150))
    def test_itKnowsExactlyWhatCame(self, numbers: list[int]) -> None:
        """120 numbers make at most 60 ranges: none is forgotten."""
        received, model = ReceivedNumbers(), set[int]()
        for number in numbers:
            self.assertEqual(number in model, number in received)
            if number not in model:
                received.add(number)
                model.add(number)
        self.assertEqual(model, {number for number in range(125) if number in received})

    @settings(max_examples=50, deadline=None)
    @given(st.randoms(use_true_random=False))
    def test_beyondItsRangesItTakesTheOldestForReceived(self, chance: random.Random) -> None:
        """Never the other way round: what came is never taken for new (RFC 9000 §12.3)."""
        numbers = [2 * each for each in range(200)]
        chance.shuffle(numbers)
        received, model = ReceivedNumbers(), set[int]()
        for number in numbers:
            if number not in received:
                received.add(number)
            model.add(number)
            self.assertEqual(set(), {each for each in model if each not in received})
        self.assertEqual(ReceivedNumbers.MAX_RANGES, len(received._starts))
        self.assertNotIn(max(numbers) + 1, received)
        self.assertIn(0, received)
        self.assertIn(1, received)

    def test_aRunInOrderIsOneRange(self) -> None:
        received = ReceivedNumbers()
        for number in range(100_000):
            received.add(number)
        self.assertEqual(([0], [100_000]), (received._starts, received._stops))
