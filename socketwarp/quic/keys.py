"""1-RTT keys: aioquic's contexts, the same keys for batches, and their updates (RFC 9001 §6)."""

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.crypto import CryptoContext, CryptoPair, derive_key_iv_hp
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.recovery import QuicPacketSpace

from .protection import Keys, minimumSize

#: Packets under one key before we update it; AES-GCM's confidentiality limit is 2**23 (RFC 9001 §6.6).
KEY_UPDATE_PACKETS = 1 << 21


class Keyring:
    """
    One direction's keys for batches: derived again when the context's secret has changed.

    :ivar previous: the keys before: packets under them may still be on their way (§6.5).
    """

    def __init__(self, context: CryptoContext) -> None:
        self.previous: Keys | None = None
        self._context = context
        self._secret: bytes | None = None
        self._current: Keys | None = None
        # Whose packets are counted, and the first of them.
        self._worn: bytes | None = None
        self._since = 0

    @property
    def current(self) -> Keys:
        """
        The keys in use in the context, which must have some. Ask before the first update: the header key is that of the
        first secret, and never changes (§6).
        """
        context = self._context
        if self._current is not None and context.secret is self._secret:
            return self._current
        suite, secret, version = context.cipher_suite, context.secret, context.version
        assert suite is not None and secret is not None and version is not None, "asked before the handshake"
        key, iv, hp = derive_key_iv_hp(cipher_suite=suite, secret=secret, version=version)
        self.previous = self._current
        self._secret = secret
        self._current = Keys(key, iv, self._current.hp if self._current else hp, context.key_phase)
        return self._current

    def isWorn(self, nextNumber: int, space: QuicPacketSpace) -> bool:
        """
        Whether keys that seal are to be updated before the packet `nextNumber` of `space`, whoever has updated them
        last; not before the peer has acknowledged a packet under them (§6.1).
        """
        secret = self._context.secret
        if secret is not self._worn:
            self._worn, self._since = secret, nextNumber
        return nextNumber - self._since >= KEY_UPDATE_PACKETS and space.largest_acked_packet >= self._since


class OneRttKeys(CryptoPair):
    """
    Both directions, for aioquic's own path. aioquic alone drops what a key update has overtaken, and so everything from
    a peer that hasn't heard of the update, having another address by now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sending, self.receiving = Keyring(self.send), Keyring(self.recv)

    def decrypt_packet(
        self, packet: bytes, encrypted_offset: int, expected_packet_number: int
    ) -> tuple[bytes, bytes, int]:
        """
        Open a packet: at least the first byte of its header, the plaintext, the packet number.

        :raises QuicConnectionError: KEY_UPDATE_ERROR, older keys for a later packet than newer ones (§6.4).
        :raises aioquic.quic.crypto.CryptoError: it can't be opened.
        """
        if not (self.send.is_valid() and self.recv.is_valid()):
            return super().decrypt_packet(packet, encrypted_offset, expected_packet_number)
        _, keys, before = self.sending.current, self.receiving.current, self.receiving.previous
        destination = packet[1:encrypted_offset]
        if before is not None and len(packet) >= minimumSize(destination):
            first, number, plain = next(before.open((memoryview(packet),), destination, expected_packet_number))
            if plain is not None:
                if number > keys.lowest:
                    reason = "older keys for a later packet than newer ones"
                    raise QuicConnectionError(QuicErrorCode.KEY_UPDATE_ERROR, QuicFrameType.PADDING, reason)
                return bytes((first,)), plain, number
        header, plain, number = super().decrypt_packet(packet, encrypted_offset, expected_packet_number)
        keys = self.receiving.current  # others, if the packet was the first under them
        keys.lowest = min(keys.lowest, number)
        return header, plain, number
