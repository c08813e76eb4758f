"""Calls of a listener's API: HTTP or HTTPS, JSON both ways, and failures in words, with their exit status."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs

from .. import errors
from ..errors import EX_FAILED, EX_NOPERM, EX_UNAVAILABLE, EX_USAGE, SocketwarpError

#: Seconds without a byte after which a call is given up, besides those for which the listener itself may wait.
PATIENCE = 15.0
#: Bytes of an answer: a thousand ports with a thousand sources each have fewer.
ANSWER_LIMIT = 2**26
#: Bytes of a line of the event stream: a port of a thousand sources before and after a change has some 50 kB.
LINE_LIMIT = 2**20

_Headers = Mapping[str, str]
_EXITS = {
    kind.code: kind.exitCode
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SocketwarpError)
}
_HTTP_EXITS = {400: EX_USAGE, 401: EX_NOPERM, 403: EX_NOPERM, 502: EX_UNAVAILABLE, 504: EX_UNAVAILABLE}
#: What the listener's TLS alert (RFC 8446 §6.2), as OpenSSL names it, says about us.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it asks its callers for a certificate: give yours with --cert and --key",
    "UNKNOWN_CA": "it doesn't know the CA that signed the certificate of --cert (its APIS_CLIENT_CA_PATH says which)",
    "CERTIFICATE_EXPIRED": "the certificate of --cert has expired: get a new one",
    "CERTIFICATE_REVOKED": "the certificate of --cert was revoked: get a new one",
    "BAD_CERTIFICATE": "it doesn't accept the certificate of --cert",
    "UNSUPPORTED_CERTIFICATE": "the certificate of --cert isn't one for clients (extendedKeyUsage clientAuth)",
    "CERTIFICATE_UNKNOWN": "it doesn't accept the certificate of --cert",
    "HANDSHAKE_FAILURE": "it may ask its callers for a certificate (--cert and --key)",
}
#: What OpenSSL says of one that speaks something else, or goes away.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING"})


class Failed(Exception):
    """
    A call that didn't succeed; its text is for people.

    :ivar exitCode: what the command exits with.
    :ivar code: the API's stable word for it; empty when the API wasn't heard.
    """

    def __init__(self, text: str, exitCode: int, code: str = "") -> None:
        super().__init__(text)
        self.exitCode = exitCode
        self.code = code


def exitFor(code: str, status: int = 0) -> int:
    """The exit status of an error's code; of one that we don't know, by the HTTP status."""
    return EX_UNAVAILABLE if status == 503 else _EXITS.get(code, _HTTP_EXITS.get(status, EX_FAILED))


def withQuery(path: str, **arguments: object) -> str:
    """A path with those arguments that are not `None`."""
    given = {name: str(value) for name, value in arguments.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


@attrs.frozen
class Api:
    """
    A listener's API.

    :ivar url: where it is, without a slash at the end.
    :ivar tls: how TLS is spoken, when the URL says so.
    :ivar token: who calls; `None`: nobody in particular.
    """

    url: str
    tls: ssl.SSLContext | None = None
    token: str | None = attrs.field(default=None, repr=False)

    def call(
        self, method: str, path: str, body: object = None, seconds: float = 0.0, headers: _Headers | None = None
    ) -> Any:
        """
        Make a call, and give what the API answers (Any: JSON).

        :param seconds: for which the listener may wait before it answers.
        :raises Failed: saying why not.
        """
        with closing(self._connection(PATIENCE + seconds)) as connection:
            with self._told():
                response = self._ask(connection, method, path, body, headers or {})
                data = response.read(ANSWER_LIMIT + 1)
            return self._understood(response, data)

    def lines(self, path: str, seconds: float, headers: _Headers) -> Iterator[str]:
        """
        What an endless answer says, line by line.

        :param seconds: of silence after which it is given up.
        :raises Failed: when it isn't given, or ends.
        """
        with closing(self._connection(seconds)) as connection:
            with self._told():
                response = self._ask(connection, "GET", path, None, headers)
                data = b"" if response.status == 200 else response.read(ANSWER_LIMIT)
            if response.status != 200:
                self._understood(response, data)
            while True:
                with self._told():
                    line = response.readline(LINE_LIMIT)
                if not line:
                    raise Failed(f"{self.url}: the listener ended the connection", EX_UNAVAILABLE)
                yield line.decode(errors="replace").rstrip("\r\n")

    def _connection(self, seconds: float) -> HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if self.tls is None:
            return HTTPConnection(host, parts.port or 80, timeout=seconds)
        return HTTPSConnection(host, parts.port or 443, timeout=seconds, context=self.tls)

    def _ask(self, connection: HTTPConnection, method: str, path: str, body: object, headers: _Headers) -> HTTPResponse:
        sent = dict(headers)
        if body is not None:
            sent["Content-Type"] = "application/json"
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        connection.connect()
        # Whom TLS refuses may hear of it only while it sends; the reason, an alert, is there to be read all the same.
        with suppress(BrokenPipeError, ConnectionResetError):
            text = None if body is None else json.dumps(body)
            connection.request(method, urlsplit(self.url).path + path, text, sent)
        return connection.getresponse()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong below HTTP, in words."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message.rstrip(".")
            text = f"{self.url}: the listener isn't believed: {reason}: is --ca right, and the name?"
            raise Failed(text, EX_NOPERM) from None
        except ssl.SSLError as error:
            raise self._refusedByTls(error) from None
        except TimeoutError:
            raise Failed(f"{self.url}: no answer in time", EX_UNAVAILABLE) from None
        except (OSError, HTTPException) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            hint = ": does it speak https?" if self.tls is None and isinstance(error, HTTPException) else ""
            raise Failed(f"{self.url}: no listener answers: {reason}{hint}", EX_UNAVAILABLE) from None

    def _refusedByTls(self, error: ssl.SSLError) -> Failed:
        alert = (error.reason or "").partition("ALERT_")[2]
        if alert in _ALERTS:
            return Failed(f"{self.url}: the listener refused us in TLS: {_ALERTS[alert]}", EX_NOPERM)
        hint = ": does it speak http only?" if error.reason in _NO_TLS else ""
        return Failed(f"{self.url}: TLS failed: {(error.reason or str(error)).replace('_', ' ')}{hint}", EX_UNAVAILABLE)

    def _understood(self, response: HTTPResponse, data: bytes) -> Any:  # Any: JSON
        """
        What an answer says.

        :raises Failed: when it is a problem (RFC 9457), or isn't the API's at all.
        """
        kind = response.headers.get_content_type()
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if kind == "application/json" and value is not None:
            return value
        if kind == "application/problem+json" and isinstance(value, dict):
            code = str(value.get("code", ""))
            text = f"{value.get('detail', response.reason)} ({code or response.status})"
            if code == "unauthenticated" and self.token is None:
                text += "; give yours with --token-file"
            raise Failed(text, exitFor(code, response.status), code)
        status = EX_UNAVAILABLE if response.status >= 500 else EX_FAILED
        raise Failed(f"{self.url}: what answers ({response.status} {response.reason}) isn't a listener's API", status)
