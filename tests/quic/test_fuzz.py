"""Whatever comes in, no exception gets out, and what is kept stays bounded."""

# ruff: noqa: B023  (what is defined in a loop here is called in that turn of it)

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.engine import Engine

from ..pump import CLIENT, SERVER, Pump, datagramsOf, give, newClient, newServer
from .apps import apps, sealed, varint

numbers = st.one_of(st.integers(0, 20), st.sampled_from([1 << 14, 1 << 20, 1 << 30, (1 << 62) - 1]))
frames = st.one_of(
    st.builds(
        lambda kind, values, data: bytes((kind,)) + varint(*values) + data,
        st.integers(0, 0x31),
        st.lists(numbers, max_size=6),
        st.binary(max_size=20),
    ),
    st.binary(max_size=40),
)


class FuzzTests(SynchronousTestCase):
    def connected(self, isServer: bool) -> tuple[Pump, Engine]:
        client = newClient(not isServer)
        pump = Pump(client, newServer(client, isServer))
        pump.connect()
        engine = pump.server if isServer else pump.client
        assert isinstance(engine, Engine)
        return pump, engine

    def drive(self, engine: Engine, now: float, isTimed: bool = True) -> None:
        """What a session does after it has received, and when the next timer fires."""
        while engine.next_event() is not None:
            pass
        streams = engine.streams
        for state in streams.touched:
            streams.onConsumed(state, sum(map(len, state.receiving.take())))
        streams.touched.clear()
        datagramsOf(engine, now)
        timer = engine.nextTimer()
        if timer is not None and isTimed:
            engine.onTimer(max(now, timer))
            datagramsOf(engine, max(now, timer))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.booleans(), st.lists(st.lists(frames, max_size=4), min_size=1, max_size=6), st.booleans())
    def test_framesOfAnyKindFromAnAuthenticatedPeer(
        self, isServer: bool, packets: list[list[bytes]], isBatch: bool
    ) -> None:
        pump, engine = self.connected(isServer)
        peer, address = (pump.client, CLIENT) if isServer else (pump.server, SERVER)
        client, server = apps(pump)
        (client if not isServer else server).write((client if not isServer else server).open(), b"x" * 3000)
        datagrams = [sealed(peer, b"".join(each)) for each in packets]
        for each in [datagrams] if isBatch else [[datagram] for datagram in datagrams]:
            give(engine, each, address, pump.now)
            self.drive(engine, pump.now)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.booleans(), st.lists(st.binary(min_size=1, max_size=1400), min_size=1, max_size=10))
    def test_datagramsOfAnyKindFromAnybody(self, isServer: bool, datagrams: list[bytes]) -> None:
        pump, engine = self.connected(isServer)
        before = engine._close_at
        short = [b"\x40" + engine.host_cid + each for each in datagrams]
        for address in (CLIENT, SERVER, ("2001:db8::bad", 1)):
            give(engine, datagrams + short, address, pump.now)
            self.drive(engine, pump.now, False)
        self.assertIsNone(engine.closeReason)
        self.assertEqual(before, engine._close_at)  # nobody can keep a dead connection alive
        self.assertEqual(CLIENT if isServer else SERVER, engine.get_peer_address())

    def test_mutatedDatagramsInAHandshakeAndATransfer(self) -> None:
        """Each datagram comes as it is too, now and then: the connection lives through all of it."""
        for seed in range(12):
            chance = random.Random(seed)
            client = newClient()
            pump = Pump(client, newServer(client))
            injected: list[tuple[Engine, bytes]] = []

            def mutate(sender: object, datagram: bytes) -> None:
                changed = bytearray(datagram)
                for _ in range(chance.randint(1, 4)):
                    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
                if chance.random() < 0.3:
                    del changed[chance.randrange(1, len(changed)) :]
                receiver = pump.server if sender is pump.client else pump.client
                assert isinstance(receiver, Engine)
                if receiver.nextTimer() is not None:  # the first Initial changed would be somebody else's first Initial
                    injected.append((receiver, bytes(changed)))

            pump.tap = mutate
            first, second = apps(pump)
            read = pump.onStep

            def step() -> None:
                read()
                for receiver, datagram in injected:
                    address = CLIENT if receiver is pump.server else SERVER
                    give(receiver, [datagram], address, pump.now)
                injected.clear()

            pump.onStep = step
            pump.connect()
            self.assertTrue(client._handshake_confirmed, seed)
            number = first.open()
            first.write(number, bytes(60_000))
            first.finish(number)
            self.assertTrue(pump.run(30, lambda: number in second.ended), seed)
            self.assertEqual(60_000, len(second.received[number]))
