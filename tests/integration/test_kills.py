"""`kill -9`, a few times; ``make torture`` does it a hundred times."""

from .kills import KillCase


class KillTests(KillCase):
    """The listener dies under load."""

    def test_afterEachKillAllWishedPortsAreOpenAgainAndNoOthers(self) -> None:
        for seed in range(4):
            self.kill(seed)
        self.assertLess(0, self.carried)
        self.assertEqual(0, self.connector.end())
