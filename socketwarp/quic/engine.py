"""
aioquic's connection made safe to serve with, and quick with bulk data: the only module that uses its private names.

Written against aioquic 1.7.2, which setup.cfg pins; tests/quic/test_contract.py fails when one of these names changes
its meaning. aioquic keeps the handshake, TLS, keys, connection ids, paths and control frames. Ours are: who may come
in (the client certificate gate), `streams` and their flow control, `recovery`, and 1-RTT packets on the current path,
which `receive` opens and `transmit` seals by the batch.
"""

import logging
from collections.abc import Iterator
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
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicPacketType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch
from cryptography import x509

from ..errors import CertificateRejected
from .batch import Batch
from .control import ControlFrames
from .frames import FIN, LEN, OFF, checkOffset
from .gate import CIPHER_SUITES, CheckPeer, PeerRefused
from .keys import OneRttKeys
from .numbers import ReceivedNumbers
from .pathmtu import MAXIMUM
from .protection import MOST_AHEAD, Keys
from .receive import Receiver
from .recovery import MAX_ACK_ONLY, Recovery
from .reset import REASON, ResetKey, isReset
from .streams import Streams
from .transmission import Transmission
from .transmit import Transmitter
from .windows import Limits

CONNECTED, DRAINING = QuicConnectionState.CONNECTED, QuicConnectionState.DRAINING

#: By these attributes an engine can still say how it ended.
KEPT = {"_network_paths", "_state", "_close_event", "_close_pending", "_events", "_handshake_confirmed", "streams"}
KEPT_OF_OURS = {"isClosedByPeer", "isRefusal", "peerChain"}

# What aioquic would print on stderr of a refused handshake is in our log, with who and why.
logging.getLogger("quic").addHandler(logging.NullHandler())


class Engine(QuicConnection):
    """
    One QUIC connection, without sockets or timers: `receive`, `transmit`, `nextTimer` and `onTimer` drive it.
    Streams are reached through ``streams`` (what came in: ``streams.touched``), everything else through `next_event`.

    :ivar peerChain: the certificates that the peer's TLS has shown, the one that authenticated it first.
    :ivar isRefusal: one end has refused the other in the handshake, and the peer's address is its own.
    :param checkPeer: raises `CertificateRejected` unless the peer's chain (leaf first, empty if it sent none) will do.
    :param resetKey: gives our connection ids their stateless reset tokens; without, they are random.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        checkPeer: CheckPeer,
        limits: Limits,
        resetKey: ResetKey | None = None,
        **arguments: Any,  # Any: keyword arguments of QuicConnection, passed on as they are
    ) -> None:
        configuration.cipher_suites = CIPHER_SUITES
        super().__init__(configuration=configuration, **arguments)
        self._resetKey = resetKey
        self._setResetTokens()
        self.streams = Streams(configuration.is_client, limits)
        self.isClosedByPeer = False
        self.isRefusal = False
        self.peerChain: list[x509.Certificate] = []
        self._control = ControlFrames(self.streams)
        self.recovery = Recovery(self._max_datagram_size, self._send_probe)
        self._loss = self.recovery  # type: ignore[assignment]  # ours in place of QuicPacketRecovery
        self.recovery.peer_completed_address_validation = not self._is_client
        self._checkPeer = checkPeer
        self._local_max_data.value = limits.sessionWindow
        self._local_max_stream_data_bidi_local = limits.streamWindow
        self._local_max_stream_data_bidi_remote = limits.streamWindow
        self._local_max_streams_bidi.value = limits.streams
        self._local_max_streams_uni.value = 0
        self._receiver = Receiver(self)
        self._transmitter = Transmitter(self)

    @property
    def isConfirmed(self) -> bool:
        """Whether the handshake is confirmed (RFC 9001 §4.1.2): on a client, our certificate is accepted."""
        return self._handshake_confirmed

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
        if not self._handshake_confirmed or self.isDeaf or not self._network_paths[0].is_validated:
            return self.get_timer()
        # The same for a connection in its prime, which has one packet number space and one path.
        self._loss_at = self.recovery.get_loss_detection_time(amplification_limited=False)
        times = (self._close_at, self.oneRtt.ack_at, self._loss_at, self._pacing_at, self._transmitter.searchTime())
        return min([each for each in times if each is not None])

    def onTimer(self, now: float) -> None:
        """Time has passed: losses, probes, idle time-out, the search for the path MTU."""
        self.handle_timer(now)
        self._transmitter.onTimer(now)

    @property
    def isDeaf(self) -> bool:
        """Whether what comes in is dropped, because the connection closes."""
        return self._close_pending or (self._state is not CONNECTED and self._state in END_STATES)

    @property
    def pathAddress(self) -> NetworkAddress:
        """The peer's socket address on the current path."""
        return self._network_paths[0].addr

    @property
    def peerConnectionId(self) -> bytes:
        """The connection id that we send to."""
        return self._peer_cid.cid

    @property
    def spin(self) -> bool:
        """The latency spin bit (RFC 9000 §17.4)."""
        return self._spin_bit

    def release(self) -> None:
        """All is over: forget the parts. They are 300 objects in circles, 70 KiB that would wait for the collector."""
        vars(self.tls).clear()
        for name in vars(self).keys() - KEPT - KEPT_OF_OURS:
            delattr(self, name)
        self._cryptos = {}

    @property
    def idleTimeout(self) -> float:
        """Seconds of silence after which either end gives the connection up (RFC 9000 §10.1)."""
        return self._idle_timeout()

    @property
    def datagramSize(self) -> int:
        """Bytes of UDP payload in use on the current path, for stream data; packets of aioquic's own have 1,200."""
        return self._transmitter.size

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.oneRtt = self._spaces[Epoch.ONE_RTT]
        self._oneRttKeys = self._cryptos[Epoch.ONE_RTT] = OneRttKeys()
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
            # Without this flag aioquic's server asks no client for a certificate, and even with it lets in one that
            # sends an empty message, and verifies no chain. So the check stands between the client's last message and
            # Finished.
            context._request_client_certificate = True
            expectFinished = context._server_expect_finished

            def checkClient() -> None:
                self._gate()
                expectFinished()

            context._server_expect_finished = checkClient  # type: ignore[method-assign]  # wraps it

    def _gate(self) -> None:
        leaf = self.tls._peer_certificate
        self.peerChain = [] if leaf is None else [leaf, *self.tls._peer_certificate_chain]
        try:
            self._checkPeer(self.peerChain)
        except CertificateRejected as error:
            self.isRefusal = True
            raise PeerRefused(error) from error

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        streams = self.streams
        streams.peerMaxData = self._remote_max_data
        streams.peerMaxStreams = self._remote_max_streams_bidi
        streams.peerWindowOfOurs = self._remote_max_stream_data_bidi_remote
        streams.peerWindowOfTheirs = self._remote_max_stream_data_bidi_local
        self._transmitter.maximum = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size or MAXIMUM

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._setResetTokens()

    def _setResetTokens(self) -> None:
        if self._resetKey is not None:
            for connectionId in self._host_cids:
                connectionId.stateless_reset_token = self._resetKey.token(connectionId.cid)

    def receive(self, batch: Batch, address: NetworkAddress, now: float) -> bool:
        """Take datagrams that came from `address` in this order; whether any of them was the peer's."""
        closesAt = self._close_at
        self._receiver.receive(batch, address, now)
        return self._close_at != closesAt

    def receiveKeys(self) -> Keys:
        """See `receive.Connection`."""
        return self._oneRttKeys.receiving.current

    def receiveOrdinary(self, datagram: memoryview, address: NetworkAddress, now: float) -> None:
        """See `receive.Connection`."""
        if self._state in END_STATES:
            return
        if not datagram[0] & 0x80 and isReset(datagram, self._peer_cid.stateless_reset_token):
            self.close(reason_phrase=REASON)
            return self._close_end()
        highest = self._spin_highest_pn
        try:
            self.receive_datagram(bytes(datagram), address, now)
        except QuicConnectionError as error:  # of OneRttKeys
            self.close(error.error_code, error.frame_type, error.reason_phrase)
        if self._is_client and not datagram[0] & 0x80 and self._spin_highest_pn > highest:
            # The server uses another of our ids, as after a migration (§9.5); aioquic's client never changes this.
            self.host_cid = bytes(datagram[1 : 1 + len(self.host_cid)])

    def handleFrames(self, plain: bytes, now: float) -> bool:
        """See `receive.Connection`."""
        context = QuicReceiveContext(Epoch.ONE_RTT, self.host_cid, self._network_paths[0], None, now, self._version)
        return self._payload_received(context, plain)[0]

    def onReceived(self, first: int, size: int, now: float) -> None:
        """See `receive.Connection`."""
        path = self._network_paths[0]
        if not path.is_validated:
            path.bytes_received += size
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        self._spin_highest_pn = self.oneRtt.largest_received_packet
        self._spin_bit = bool(first & 0x20) != self._is_client

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
        self.isClosedByPeer = not self._close_pending and self._state == DRAINING
        # Who knows the id that we chose has heard us, so its address is its own (RFC 9000 §8.1).
        self.isRefusal |= self.isClosedByPeer and context.host_cid == self.host_cid

    def _handle_stream_data_blocked_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        self.streams.find(frame_type, buf.pull_uint_var())
        buf.pull_uint_var()

    def transmit(self, now: float) -> Iterator[Transmission]:
        """
        What is to be sent at `now`, to be taken to the end: control frames, then flights, each made when asked for.
        When ``streams.sendable`` isn't empty afterwards, there may be more for another call; ask `nextTimer` when.
        """
        if not self._network_paths or not self._cryptos:
            return
        mayFly = self._handshake_confirmed and not self.isDeaf and self._network_paths[0].is_validated
        if self._probe_pending and mayFly and self.streams.sendable:
            self._probe_pending = False  # stream data makes a better probe than PING (RFC 9002 §6.2.4)
        self._pacing_at = None
        if mayFly and self._oneRttKeys.sending.isWorn(self._packet_number, self.oneRtt):
            self.request_key_update()
        if self._isControlDue(now):
            for each, to in self.datagrams_to_send(now):
                yield Transmission([each], len(each), to)
        if mayFly:
            yield from self._transmitter.transmit(now)
            self._pacing_at = self._transmitter.nextTime

    def _isControlDue(self, now: float) -> bool:
        """Whether the ordinary path has anything to send; asking it costs as much as a flight."""
        if not self._handshake_confirmed or self._close_pending:
            return True
        ackAt = self.oneRtt.ack_at
        return bool(
            (ackAt is not None and ackAt <= now)
            or self._control.isDue
            or self._ping_pending
            or self._probe_pending
            or self._handshake_done_pending
            or self._retire_connection_ids
            or any([p.remote_challenges or not (p.is_validated or p.local_challenge_sent) for p in self._network_paths])
            or not all([each.was_sent for each in self._host_cids])
        )

    @property
    def numbersLeft(self) -> int:
        """See `transmit.Connection`."""
        return self.oneRtt.largest_acked_packet + MOST_AHEAD - self._packet_number

    def takeNumbers(self, count: int) -> int:
        """See `transmit.Connection`."""
        first = self._packet_number
        self._packet_number += count
        return first

    def onSent(self, size: int, now: float) -> None:
        """See `transmit.Connection`."""
        self._network_paths[0].bytes_sent += size
        if not self._ack_eliciting_sent_since_receipt:  # RFC 9000 §10.1
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True

    def sendKeys(self) -> Keys:
        """See `transmit.Connection`."""
        pair = self._oneRttKeys
        if pair._update_key_requested:
            pair._update_key("local_update")
        return pair.sending.current

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        """Everything but stream data, in place of the engine's loop over all streams."""
        crypto, space = self._oneRttKeys, self.oneRtt
        if not crypto.send.is_valid():
            return
        while True:
            builder.start_packet(QuicPacketType.ONE_RTT, crypto)
            if space.ack_at is not None:
                self._write_ack_frame(builder, space, now)
                self._receiver.unacknowledged = 0
            if self._handshake_complete:
                self._writeConnectionFrames(builder, network_path, now)
            if self._ping_pending or self._probe_pending or self.recovery.ackOnly >= MAX_ACK_ONLY:
                self._write_ping_frame(builder, self._ping_pending)
                self._ping_pending.clear()
                self._probe_pending = False
                self.recovery.ackOnly = 0
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
            self.recovery.forgetLeastRtt()  # who asks sees us in another place
            self._write_path_response_frame(builder, path.remote_challenges[0])
            path.remote_challenges.popleft()
        for connectionId in self._host_cids:
            if not connectionId.was_sent:
                self._write_new_connection_id_frame(builder, connectionId)
        while self._retire_connection_ids:
            self._write_retire_connection_id_frame(builder, self._retire_connection_ids[0])
            self._retire_connection_ids.pop(0)
        self._control.write(builder, now, self.recovery.minimumRtt)
