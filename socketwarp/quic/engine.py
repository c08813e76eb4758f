"""
aioquic's connection made safe to serve with and quick enough to carry bulk data: the only module that uses its private names.

Written against aioquic 1.7.2, which setup.cfg pins; tests/quic/test_contract.py fails when one of these names changes its meaning.
aioquic keeps the handshake, TLS, keys, connection ids, paths and control frames. Ours are: who may come in (the client certificate gate),
`streams` and their flow control, `recovery`, and 1-RTT packets on the current path, which are sealed and opened by the batch.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    END_STATES,
    NetworkAddress,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.crypto import CryptoContext, derive_key_iv_hp
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicFrameType, QuicPacketType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch
from cryptography import x509

from ..errors import CertificateRejected
from .control import ControlFrames
from .flight import Flight
from .frames import FIN, LEN, OFF, checkOffset, isBulk, parseBulk
from .numbers import ReceivedNumbers
from .pathmtu import BASE, BLACK_HOLE_TIMEOUTS, MAXIMUM, PathMtu, Probe
from .protection import Keys, minimumSize
from .recovery import Recovery
from .streams import Limits, Streams, StreamState
from .transmission import BYTES_PER_CALL, SEGMENTS_PER_CALL, Transmission, overheadOf, payloadsOf, transmissionsOf

#: Cipher suites whose header protection can be computed by the batch.
CIPHER_SUITES = [tls.CipherSuite.AES_128_GCM_SHA256, tls.CipherSuite.AES_256_GCM_SHA384]

#: Packets under one key before we update it; AES-GCM's confidentiality limit is 2**23 (RFC 9001 §6.6).
KEY_UPDATE_PACKETS = 1 << 21

#: Flights in one call of `transmit`; more would keep other connections, and small writes, waiting.
FLIGHTS_PER_TURN = 8

#: Probe time-outs that a path MTU probe has to be acknowledged.
PROBE_TIMEOUTS = 3

#: Unacknowledged bytes received after which an ACK goes out at once instead of after `ACK_DELAY` seconds.
ACK_BYTES = 256 * 1024
ACK_DELAY = 0.001

# What aioquic would print on stderr of a refused handshake is in our log, with who and why.
logging.getLogger("quic").addHandler(logging.NullHandler())

CheckPeer = Callable[[Sequence[x509.Certificate]], None]


class PeerRefused(tls.Alert):
    """The TLS alert for a certificate that `CheckPeer` rejected."""

    def __init__(self, error: CertificateRejected) -> None:
        super().__init__(str(error))
        self.description = tls.AlertDescription(error.alert)


class Engine(QuicConnection):
    """
    One QUIC connection, without sockets or timers: `receive`, `transmit`, `get_timer` and `handle_timer` drive it.

    Streams are reached through ``streams`` (what came in: ``streams.touched``), everything else through `next_event`.

    :param checkPeer: raises `CertificateRejected` unless the peer's chain (leaf first, empty if it sent none) will do.
    """

    def __init__(
        self, configuration: QuicConfiguration, checkPeer: CheckPeer, limits: Limits, **arguments: Any
    ) -> None:  # Any: keyword arguments of QuicConnection, passed on as they are
        configuration.cipher_suites = CIPHER_SUITES
        super().__init__(configuration=configuration, **arguments)
        self.streams = Streams(configuration.is_client, limits)
        self.isClosedByPeer = False
        self._control = ControlFrames(self.streams)
        self.recovery = self._loss = Recovery(  # type: ignore[assignment]  # ours in place of QuicPacketRecovery
            self._max_datagram_size, self._send_probe
        )
        self.recovery.peer_completed_address_validation = not self._is_client
        self._checkPeer = checkPeer
        self._local_max_data.value = limits.sessionWindow
        self._local_max_stream_data_bidi_local = limits.streamWindow
        self._local_max_stream_data_bidi_remote = limits.streamWindow
        self._local_max_streams_bidi.value = limits.streams
        self._local_max_streams_uni.value = 0
        self._keys: dict[CryptoContext, tuple[bytes, Keys]] = {}
        self._keySince = 0
        self._bytesToAcknowledge = 0
        self._pathMtu = PathMtu()
        self._pathMtuLimit = MAXIMUM
        self._path: QuicNetworkPath | None = None

    # What the room may ask

    @property
    def isConfirmed(self) -> bool:
        """Whether the handshake is confirmed (RFC 9001 §4.1.2): on a client, the server has accepted our certificate."""
        return self._handshake_confirmed

    @property
    def isAddressValidated(self) -> bool:
        """Whether the peer has shown that its address is its own (RFC 9000 §8.1)."""
        return bool(self._network_paths) and self._network_paths[0].is_validated

    @property
    def isClosing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._close_event is not None or self._state in END_STATES

    @property
    def closeReason(self) -> ConnectionTerminated | None:
        """Why the connection closes, once it does."""
        return self._close_event

    def nextTimer(self) -> float | None:
        """When `onTimer` is due; `None` before the first datagram and after the end."""
        if self._close_at is None:
            return None
        timer, search = self.get_timer(), self._pathMtu.nextTime()
        return timer if search is None or timer is None or self._isDeaf else min(timer, search)

    def onTimer(self, now: float) -> None:
        """Time has passed: losses, probes, idle time-out, the search for the path MTU."""
        self.handle_timer(now)
        self._pathMtu.expire(now)
        if self.recovery.timeouts == BLACK_HOLE_TIMEOUTS and self._pathMtu.size > BASE:
            self._pathMtu.onBlackHole(now)
            self.recovery.rescheduleAll(self._oneRtt)
            self._useDatagramSize()

    @property
    def peerLeaf(self) -> x509.Certificate | None:
        """The certificate that authenticated the peer's TLS."""
        return self.tls._peer_certificate

    @property
    def idleTimeout(self) -> float:
        """Seconds of silence after which either end gives the connection up (RFC 9000 §10.1)."""
        return self._idle_timeout()

    @property
    def datagramSize(self) -> int:
        """The UDP payload in use on the current path."""
        return self._max_datagram_size

    # The gate

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._oneRtt, self._oneRttKeys = self._spaces[Epoch.ONE_RTT], self._cryptos[Epoch.ONE_RTT]
        for space in self._spaces.values():
            space.received_packets = ReceivedNumbers()  # type: ignore[assignment]  # same two methods, no fixed size
        context = self.tls
        if self._is_client:
            verified = context._client_handle_certificate_verify

            def checkServer(buffer: Buffer) -> None:
                try:
                    verified(buffer)
                except tls.AlertBadCertificate:
                    self._gate()  # it knows the alert that says why
                    raise
                self._gate()

            context._client_handle_certificate_verify = checkServer  # type: ignore[method-assign,assignment]  # wraps it
        else:
            # Without this flag aioquic's server asks no client for a certificate, and even with it lets in one that sends an
            # empty message, and verifies no chain. So the check stands between the client's last message and Finished.
            context._request_client_certificate = True
            expectFinished = context._server_expect_finished

            def checkClient() -> None:
                self._gate()
                expectFinished()

            context._server_expect_finished = checkClient  # type: ignore[method-assign]  # wraps it

    def _gate(self) -> None:
        leaf = self.tls._peer_certificate
        chain = [] if leaf is None else [leaf, *self.tls._peer_certificate_chain]
        try:
            self._checkPeer(chain)
        except CertificateRejected as error:
            raise PeerRefused(error) from error

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        streams = self.streams
        streams.peerMaxData = self._remote_max_data
        streams.peerMaxStreams = self._remote_max_streams_bidi
        streams.peerWindowOfOurs = self._remote_max_stream_data_bidi_remote
        streams.peerWindowOfTheirs = self._remote_max_stream_data_bidi_local
        self._pathMtuLimit = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size or MAXIMUM

    # Receiving

    def receive(self, datagrams: Sequence[memoryview], address: NetworkAddress, now: float) -> None:
        """
        Take datagrams that came from `address` in this order.

        Runs of short-header packets to the current connection id on the current path are opened by the batch; all others
        go one by one through the ordinary path.
        """
        batch: list[memoryview] = []
        for datagram in datagrams:
            if self._isOrdinary(datagram, address):
                self._receiveBatch(batch, now)
                batch = []
                self._receiveOrdinary(datagram, address, now)
            else:
                batch.append(datagram)
        self._receiveBatch(batch, now)

    def _isOrdinary(self, datagram: memoryview, address: NetworkAddress) -> bool:
        cid = self.host_cid
        return (
            not self._handshake_confirmed
            or datagram[0] & 0xC0 != 0x40
            or len(datagram) < minimumSize(cid)
            or datagram[1 : 1 + len(cid)] != cid
            or self._network_paths[0].addr != address
        )

    def _receiveOrdinary(self, datagram: memoryview, address: NetworkAddress, now: float) -> None:
        if self._state not in END_STATES:
            self.receive_datagram(bytes(datagram), address, now)

    def _receiveBatch(self, datagrams: list[memoryview], now: float) -> None:
        """Packets on the current path, one in each datagram; what they have in common is done once for all."""
        if not datagrams or self._isDeaf:
            return
        space, path = self._oneRtt, self._network_paths[0]
        keys = self._keysOf(self._oneRttKeys.recv)
        context = QuicReceiveContext(Epoch.ONE_RTT, self.host_cid, path, None, now, self._version)
        if not path.is_validated:
            path.bytes_received += sum([len(each) for each in datagrams])
        start = stop = space.largest_received_packet + 1
        opened = keys.open(datagrams, self.host_cid, stop)
        for datagram, (first, number, plain) in zip(datagrams, opened, strict=True):
            if plain is None:  # another key phase, or forged: the ordinary path knows how to tell
                self._noteReceived(start, stop, now)
                self._receiveOrdinary(datagram, path.addr, now)
                start = stop = space.largest_received_packet + 1
            else:
                if number != stop:
                    self._noteReceived(start, stop, now)
                    if number in space.received_packets:
                        start = stop = space.largest_received_packet + 1
                        continue
                    start = stop = number
                if not self._receiveFrames(context, plain):
                    return
                stop += 1
                self._spin_bit = bool(first & 0x20) != self._is_client
            if self._isDeaf:
                return
        self._noteReceived(start, stop, now)

    def _noteReceived(self, start: int, stop: int, now: float) -> None:
        """Packets `start` to before `stop` have been handled (RFC 9000 §10.1, §13.2)."""
        if start == stop:
            return
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        space = self._oneRtt
        isInOrder = start == space.largest_received_packet + 1
        if stop > space.largest_received_packet:
            space.largest_received_packet = self._spin_highest_pn = stop - 1
            space.largest_received_time = now
            space.expected_packet_number = stop
        space.ack_queue.add(start, stop)
        space.received_packets.add(start, stop)  # type: ignore[call-arg]  # ReceivedNumbers
        if len(space.ack_queue) > ReceivedNumbers.MAX_RANGES:
            space.ack_queue.shift()
        if self._bytesToAcknowledge:
            if not isInOrder or self._bytesToAcknowledge >= ACK_BYTES:
                space.ack_at = now  # RFC 9000 §13.2.1: at once when packets are missing or out of order
            elif space.ack_at is None:
                space.ack_at = now + ACK_DELAY

    def _receiveFrames(self, context: QuicReceiveContext, plain: bytes) -> bool:
        """Handle a packet's frames; false when they made the connection close."""
        try:
            if plain and isBulk(plain[0]):
                streamId, offset, position = parseBulk(plain)
                self.streams.onStream(plain[0], streamId, offset, memoryview(plain)[position:], bool(plain[0] & FIN))
                self._bytesToAcknowledge += len(plain)
            else:
                isAckEliciting, _ = self._payload_received(context, plain)
                self._bytesToAcknowledge += isAckEliciting and len(plain)
        except QuicConnectionError as error:
            self.close(error.error_code, error.frame_type, error.reason_phrase)
            return False
        return True

    @property
    def _isDeaf(self) -> bool:
        return self._close_pending or self._state in END_STATES

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        streamId = buf.pull_uint_var()
        offset = buf.pull_uint_var() if frame_type & OFF else 0
        length = buf.pull_uint_var() if frame_type & LEN else buf.capacity - buf.tell()
        checkOffset(frame_type, offset, length)
        self.streams.onStream(frame_type, streamId, offset, buf.pull_bytes(length), bool(frame_type & FIN))

    def _handle_reset_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        streamId, errorCode, finalSize = buf.pull_uint_var(), buf.pull_uint_var(), buf.pull_uint_var()
        self.streams.onReset(streamId, errorCode, finalSize)

    def _handle_stop_sending_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        self.streams.onStopSending(buf.pull_uint_var(), buf.pull_uint_var())

    def _handle_max_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        self.streams.onMaxData(buf.pull_uint_var())

    def _handle_max_stream_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        self.streams.onMaxStreamData(buf.pull_uint_var(), buf.pull_uint_var())

    def _handle_max_streams_bidi_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_max_streams_bidi_frame(context, frame_type, buf)
        self.streams.peerMaxStreams = self._remote_max_streams_bidi

    def _handle_connection_close_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_connection_close_frame(context, frame_type, buf)
        self.isClosedByPeer = not self._close_pending and self._state == QuicConnectionState.DRAINING

    def _handle_stream_data_blocked_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        self.streams.find(frame_type, buf.pull_uint_var())
        buf.pull_uint_var()

    # Sending

    def transmit(self, now: float) -> list[Transmission]:
        """
        What is to be sent at `now`: control frames and acknowledgements first, then flights of stream data.

        When ``streams.sendable`` isn't empty afterwards, there may be more for another call; ask `get_timer` when.
        """
        if not self._network_paths or not self._cryptos:
            return []
        if self._probe_pending and self._handshake_confirmed and self.streams.sendable:
            self._probe_pending = False  # stream data makes a better probe than PING (RFC 9002 §6.2.4)
        self._pacing_at = None
        transmissions: list[Transmission] = []
        if self._isControlDue(now):
            transmissions = [Transmission([each], len(each), to) for each, to in self.datagrams_to_send(now)]
        if self._handshake_confirmed and not self._isDeaf and self._network_paths[0].is_validated:
            if self._network_paths[0] is not self._path:
                self._onPathChanged()
            self._probePathMtu(transmissions, now)
            if self.streams.sendable:
                self._transmitFlights(transmissions, now)
        return transmissions

    def _onPathChanged(self) -> None:
        """Begin on a new path as on an unknown one (RFC 9000 §9.4), unless only the port is another."""
        last, self._path = self._path, self._network_paths[0]
        if last is None or last.addr[0] != self._path.addr[0]:
            self._pathMtu = PathMtu(self._pathMtuLimit)
            self._useDatagramSize()
            if last is not None:
                self.recovery.congestion.restart(self._max_datagram_size)

    def _useDatagramSize(self) -> None:
        self._max_datagram_size = self._pathMtu.size
        self.recovery.setDatagramSize(self._max_datagram_size)

    def _probePathMtu(self, transmissions: list[Transmission], now: float) -> None:
        search, path = self._pathMtu, self._network_paths[0]
        if search.size > self._max_datagram_size:
            self._useDatagramSize()
        while (size := search.nextProbe(now)) is not None:
            payload = bytes((QuicFrameType.PING,)).ljust(size - overheadOf(None, self._peer_cid.cid), b"\0")
            pieces = self._sendKeys().seal(self._spin_bit, self._peer_cid.cid, self._packet_number, [payload])
            self.recovery.onSent(Probe(search, self._packet_number, size, now), self._oneRtt)
            search.onSent(size, now + PROBE_TIMEOUTS * self.recovery.get_probe_timeout())
            self._packet_number += 1
            transmissions.append(Transmission(pieces, size, path.addr))

    def _isControlDue(self, now: float) -> bool:
        """Whether the ordinary path has anything to send; asking it costs as much as a flight."""
        if not self._handshake_confirmed or self._close_pending:
            return True
        path = self._network_paths[0]
        ackAt = self._oneRtt.ack_at
        return bool(
            (ackAt is not None and ackAt <= now)
            or self._control.isDue
            or self._ping_pending
            or self._probe_pending
            or self._handshake_done_pending
            or self._retire_connection_ids
            or len(self._network_paths) > 1
            or path.remote_challenges
            or not (path.is_validated or path.local_challenge_sent)
            or not all([each.was_sent for each in self._host_cids])
        )

    def _transmitFlights(self, transmissions: list[Transmission], now: float) -> None:
        path = self._network_paths[0]
        recovery, streams = self.recovery, self.streams
        congestion, pacer = recovery.congestion, recovery.pacer
        size = self._max_datagram_size
        for _ in range(FLIGHTS_PER_TURN):
            if not streams.sendable:
                congestion.isLimiting = False
                return
            room = max(congestion.window - congestion.inFlight, recovery.probes * size)
            if room < size:
                congestion.isLimiting = True
                return
            paced = pacer.credit(now)
            if paced < size:
                self._pacing_at = pacer.nextTime(now)
                return
            count = int(min(SEGMENTS_PER_CALL, BYTES_PER_CALL // size, room // size, paced // size))
            recovery.probes = 0
            self._sendFlight(streams.sendable.popleft(), size, count, path, transmissions, now)

    def _sendFlight(
        self,
        state: StreamState,
        size: int,
        count: int,
        path: QuicNetworkPath,
        transmissions: list[Transmission],
        now: float,
    ) -> None:
        """Seal up to `count` datagrams of at most `size` bytes of one stream, and note them as one run."""
        cid = self._peer_cid.cid
        overhead = overheadOf(state.streamId, cid)
        segments = self.streams.cut(state, size - overhead, count)
        if not segments:
            return
        sizes = [len(segment.data) + overhead for segment in segments]
        pieces = self._sendKeys().seal(self._spin_bit, cid, self._packet_number, payloadsOf(state.streamId, segments))
        flight = Flight(state, self._packet_number, segments, now, sum(sizes), overhead)
        self.recovery.onSent(flight, self._oneRtt)
        self._packet_number += len(segments)
        path.bytes_sent += flight.size
        if not self._ack_eliciting_sent_since_receipt:  # RFC 9000 §10.1
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True
        transmissions.extend(transmissionsOf(pieces, sizes, path.addr))

    def _sendKeys(self) -> Keys:
        pair = self._oneRttKeys
        if self._packet_number - self._keySince >= KEY_UPDATE_PACKETS:
            self.request_key_update()
        if pair._update_key_requested:
            pair._update_key("local_update")
            self._keySince = self._packet_number
        return self._keysOf(pair.send)

    def _keysOf(self, context: CryptoContext) -> Keys:
        """Keys for batches, derived again when the context's secret has changed; the header key never does (RFC 9001 §6)."""
        suite, secret, version = context.cipher_suite, context.secret, context.version
        assert suite is not None and secret is not None and version is not None, "asked before the handshake"
        lastSecret, known = self._keys.get(context, (None, None))
        if known is None or lastSecret is not secret:
            key, iv, hp = derive_key_iv_hp(cipher_suite=suite, secret=secret, version=version)
            known = Keys(key, iv, known.hp if known else hp, context.key_phase)
            self._keys[context] = (secret, known)
        return known

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        """Everything but stream data, in place of the engine's loop over all streams."""
        crypto = self._oneRttKeys
        if not crypto.send.is_valid():
            return
        space = self._oneRtt
        while True:
            builder.start_packet(QuicPacketType.ONE_RTT, crypto)
            if space.ack_at is not None:
                self._write_ack_frame(builder, space, now)
                self._bytesToAcknowledge = 0
            if self._handshake_complete:
                self._writeConnectionFrames(builder, network_path, now)
            if self._ping_pending:
                self._write_ping_frame(builder, self._ping_pending)
                self._ping_pending.clear()
            if self._probe_pending:
                self._write_ping_frame(builder, comment="probe")
                self._probe_pending = False
            if builder.packet_is_empty:
                return

    def _writeConnectionFrames(self, builder: QuicPacketBuilder, path: QuicNetworkPath, now: float) -> None:
        if not (path.is_validated or path.local_challenge_sent):
            self._write_path_challenge_frame(builder, path)
            if path.validation_deadline is None:  # RFC 9000 §8.2.4
                path.validation_deadline = now + 3 * max(self.recovery.get_probe_timeout(), 0.2)
        if self._handshake_done_pending:
            self._write_handshake_done_frame(builder)
            self._handshake_done_pending = False
        while path.remote_challenges:
            self._write_path_response_frame(builder, path.remote_challenges[0])
            path.remote_challenges.popleft()
        for connectionId in self._host_cids:
            if not connectionId.was_sent:
                self._write_new_connection_id_frame(builder, connectionId)
        while self._retire_connection_ids:
            self._write_retire_connection_id_frame(builder, self._retire_connection_ids[0])
            self._retire_connection_ids.pop(0)
        self._control.write(builder)
