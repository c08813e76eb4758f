"""From aioquic's packet protection contexts to keys for batches, across key updates (RFC 9001 §6)."""

from aioquic.quic.crypto import CryptoContext, derive_key_iv_hp

from .protection import Keys


class Keyring:
    """One direction's keys: derived again when the context's secret has changed. The header key never changes (§6)."""

    def __init__(self) -> None:
        self._secret: bytes | None = None
        self._current: Keys | None = None
        #: The keys before: packets under them may still be on their way (§6.5).
        self.previous: Keys | None = None

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
