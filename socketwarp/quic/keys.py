"""From aioquic's packet protection contexts to keys for batches; key updates, and when one is due (RFC 9001 §6)."""

from aioquic.quic.crypto import CryptoContext, derive_key_iv_hp
from aioquic.quic.recovery import QuicPacketSpace

from .protection import Keys

#: Packets under one key before we update it; AES-GCM's confidentiality limit is 2**23 (RFC 9001 §6.6).
KEY_UPDATE_PACKETS = 1 << 21


class Keyring:
    """
    One direction's keys: derived again when the context's secret has changed. The header key is that of the first
    secret, and never changes (§6): ask `of` as soon as there is one.
    """

    def __init__(self) -> None:
        self._secret: bytes | None = None
        self._current: Keys | None = None
        #: The keys before: packets under them may still be on their way (§6.5).
        self.previous: Keys | None = None
        # Whose packets are counted, and the first of them.
        self._wearing: bytes | None = None
        self._since = 0

    def of(self, context: CryptoContext) -> Keys:
        """The keys in use in `context`, which must have some."""
        if self._current is not None and context.secret is self._secret:
            return self._current
        suite, secret, version = context.cipher_suite, context.secret, context.version
        assert suite is not None and secret is not None and version is not None, "asked before the handshake"
        key, iv, hp = derive_key_iv_hp(cipher_suite=suite, secret=secret, version=version)
        self.previous = self._current
        self._secret = secret
        self._current = Keys(key, iv, self._current.hp if self._current else hp, context.key_phase)
        return self._current

    def isWorn(self, context: CryptoContext, nextNumber: int, space: QuicPacketSpace) -> bool:
        """
        Whether the keys that seal in `context` are to be updated before the packet `nextNumber` of `space`, whoever
        has updated them last; not before the peer has acknowledged a packet under them (§6.1).
        """
        if context.secret is not self._wearing:
            self._wearing, self._since = context.secret, nextNumber
        return nextNumber - self._since >= KEY_UPDATE_PACKETS and space.largest_acked_packet >= self._since
