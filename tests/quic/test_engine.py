"""Engines through the pump, in both roles, with themselves and with plain aioquic."""

from twisted.trial.unittest import SynchronousTestCase

from ..pump import pair
from .apps import apps

SIDES = ("both", "client", "server")


class TransferTests(SynchronousTestCase):
    def test_bytesArriveExactlyInBothDirections(self) -> None:
        data = bytes(range(256)) * 4096
        for ours in SIDES:
            pump = pair(ours)
            client, server = apps(pump)
            number = client.open()
            client.write(number, data)
            client.finish(number)
            pump.run(20, lambda: number in server.ended)
            self.assertEqual(data, server.received[number], ours)
            server.write(number, data[::-1])
            server.finish(number)
            pump.run(20, lambda: number in client.ended)
            self.assertEqual(data[::-1], client.received[number], ours)
