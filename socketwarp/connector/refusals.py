"""Why a session ended or didn't begin, in words a person can act on."""

from ..errors import Code, SessionLost

#: QUIC carries TLS alerts as transport errors from here on (RFC 9001 §4.8).
_CRYPTO_ERROR = 0x100

#: TLS alerts (RFC 8446 §6) about a certificate, as predicates of it.
_CERTIFICATE_ALERTS = {
    42: "isn't acceptable",
    43: "is of a kind that isn't supported",
    44: "has been revoked",
    45: "has expired or isn't valid yet",
    46: "isn't acceptable",
    48: "isn't signed by a CA that is trusted there",
    49: "gives no access",
    51: "doesn't fit its private key",
    116: "was required but not sent",
}
_OTHER_ALERTS = {
    40: "no common security parameters",
    70: "no common TLS version",
    80: "an internal error",
    112: "the server name is unknown there",
    120: "no common protocol (ALPN): is this a listener, and of a version that fits?",
}
_CODES = {
    Code.NO_ERROR: "the listener ended the session",
    Code.DENIED: "the listener's verifier refuses our certificate",
    Code.VERIFIER_FAULT: "the listener can't ask its verifier who we are",
    Code.SUPERSEDED: "another connector with our uid took over",
    Code.SHUTDOWN: "the listener is stopping",
    Code.LIMIT: "the listener has reached a limit",
    Code.TIMED_OUT: "the listener waited too long",
    Code.MALFORMED: "the listener didn't understand us",
    Code.INTERNAL: "the listener has an internal error",
}


def isAlert(errorCode: int) -> bool:
    """Whether the code of a session's end is that of a TLS alert."""
    return _CRYPTO_ERROR <= errorCode < _CRYPTO_ERROR + 256


def explain(error: BaseException) -> str:
    """One sentence about the end of a session or an attempt: what happened, and the other end's own words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not isinstance(error, SessionLost) or error.errorCode is None:
        return str(error) or type(error).__name__
    if isAlert(error.errorCode):
        return f"{_alert(error.errorCode - _CRYPTO_ERROR, error.fromPeer)}: {error}"
    if error.fromPeer and error.errorCode in _CODES:
        return f"{_CODES[Code(error.errorCode)]}: {error}"
    return str(error)


def _alert(number: int, fromPeer: bool) -> str:
    if number in _CERTIFICATE_ALERTS:
        who = "the listener refused us: our certificate" if fromPeer else "we refused the listener: its certificate"
        return f"{who} {_CERTIFICATE_ALERTS[number]} (TLS alert {number})"
    who = "the listener refused us" if fromPeer else "we refused the listener"
    return f"{who}: {_OTHER_ALERTS.get(number, 'TLS failed')} (TLS alert {number})"
