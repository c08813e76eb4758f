"""Who may come in, in TLS's words."""

from collections.abc import Callable, Sequence

from aioquic import tls
from cryptography import x509

from ..errors import CertificateRejected

#: Checks a chain, the leaf first, empty if the peer sent none; raises `CertificateRejected`.
CheckPeer = Callable[[Sequence[x509.Certificate]], None]

#: Cipher suites whose header protection can be computed by the batch, see `protection`.
CIPHER_SUITES = [tls.CipherSuite.AES_128_GCM_SHA256, tls.CipherSuite.AES_256_GCM_SHA384]


class PeerRefused(tls.Alert):
    """The TLS alert for a certificate that a `CheckPeer` rejected."""

    def __init__(self, error: CertificateRejected) -> None:
        super().__init__(str(error))
        self.description = tls.AlertDescription(error.alert)
