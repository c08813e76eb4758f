"""Who is at the other end, or would like to be."""

from ._base import EX_NOPERM, EX_UNAVAILABLE, Code, SocketwarpError


class CertificateRejected(SocketwarpError):
    """
    A peer's certificate chain doesn't pass our checks, during the TLS handshake.

    :ivar alert: the TLS alert's number (RFC 8446 §6.2): 42 bad_certificate, 43 unsupported_certificate, 44
        certificate_revoked, 45 certificate_expired, 48 unknown_ca, 116 certificate_required.
    """

    code = "certificate-rejected"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM

    def __init__(self, text: str, alert: int) -> None:
        super().__init__(text)
        self.alert = alert


class VerifierRefused(SocketwarpError):
    """The verifier decided: this certificate is nobody's (SCEP's 401, a deny list). Final for this certificate."""

    code = "verifier-refused"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM


class VerifierFault(SocketwarpError):
    """The verifier couldn't decide (unreachable, too slow, nonsense). A new session is refused; try again later."""

    code = "verifier-fault"
    status = 503
    streamCode = Code.VERIFIER_FAULT
    exitCode = EX_UNAVAILABLE


class EnrolmentRefused(SocketwarpError):
    """The SCEP server gives this client no certificate: wrong or used secret, or client not in a state to get one."""

    code = "enrolment-refused"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM


class EnrolmentFault(SocketwarpError):
    """The SCEP server couldn't be reached, or what it sent makes no sense; nothing was written."""

    code = "enrolment-fault"
    status = 503
    streamCode = Code.VERIFIER_FAULT
    exitCode = EX_UNAVAILABLE
