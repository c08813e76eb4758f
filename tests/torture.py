"""The long fault tests: ``make torture``. What they repeat is run a few times by ``make test``, too."""

from tests.integration.kills import KillCase


class KillTests(KillCase):
    """The listener dies under load."""

    def test_afterAHundredKillsAllWishedPortsAreOpenAndNoOthers(self) -> None:
        for seed in range(100):
            self.kill(seed)
        self.assertLess(0, self.carried)
