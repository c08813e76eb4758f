"""
The verifier that asks a SCEP server: an HTTP call with the certificate in a header; the answer names the uid.

``GET URL`` with ``X-Mtls-Clientcert: <percent-encoded PEM>``. 2xx with a JSON object ``{"uid": "…", "attributes": {}}``
admits, 401 refuses, and all else is a fault of the server's, which refuses as well but decides nothing.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import quote

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, ensureDeferred, fail
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent
from zope.interface import implementer

from ..errors import CertificateRejected, VerifierFault, VerifierRefused
from ..interfaces import Identity, IVerifier
from .chains import Standing, standsAnyway
from .describe import fingerprintOf, printable, subjectOf
from .http import Answer, explain, fetch, webAgent
from .names import checkedUid
from .pem import FilePath, SettingFile

#: Seconds from the question to the answer, waiting in the queue and retries included.
DEADLINE = 5.0
#: Seconds for which a decision is remembered. Keep it below the re-check interval, or a revocation is seen late.
CACHE_SECONDS = 3.0
#: Decisions remembered at a time; the oldest go first.
MAX_REMEMBERED = 4096
#: Calls at a time: what a small server with a database behind it answers within the deadline.
MAX_CALLS = 32
#: Questions that wait for a call; 500 connectors that lost their listener at once fit in twice.
MAX_WAITING = 1024
#: Seconds before the second and the third attempt, after a fault.
RETRY_PAUSES = (0.2, 0.8)

#: Where the certificate goes.
HEADER = "X-Mtls-Clientcert"
#: What a server that sends JSON may call it; Go's default for an unmarked answer is text/plain.
_JSON_TYPES = frozenset({"", "application/json", "text/json", "text/plain"})

_log = Logger(namespace="socketwarp.identity")


@attrs.define(eq=False)
class _Question:
    """
    One call and all who wait for its answer. It is given up when all of them have.

    :ivar over: called when nobody can join any more.
    """

    _over: Callable[[], None]
    _call: "Deferred[None] | None" = None
    _waiting: "list[Deferred[Identity | str]]" = attrs.field(factory=list)

    def join(self) -> "Deferred[Identity | str]":
        waiting: Deferred[Identity | str] = Deferred(self._leave)
        self._waiting.append(waiting)
        return waiting

    def ask(self, call: "Deferred[Identity | str]") -> None:
        self._call = call.addBoth(self._answered)

    def _leave(self, waiting: "Deferred[Identity | str]") -> None:
        self._waiting.remove(waiting)
        if not self._waiting:
            self._over()
            if self._call is not None:
                self._call.cancel()

    def _answered(self, answer: Identity | str | Failure) -> None:
        self._over()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(answer)  # a Failure, too


@implementer(IVerifier)
@attrs.define(eq=False)
class ScepVerifier:
    """
    Asks the SCEP server at `url`.

    :ivar url: the whole verify URL.
    :ivar agent: makes the calls; it must not follow redirects by itself. See `scepAgent`. May be replaced at any time.
    :ivar deadline: seconds, everything included.
    :ivar cacheSeconds: for how long a decision (an identity, or a 401) is given again without asking; 0: never.
    :ivar standing: raises `CertificateRejected` when the certificate is expired or revoked by what we know ourselves;
        then the server isn't asked.
    """

    _url: str
    agent: IAgent
    _clock: IReactorTime
    _deadline: float = DEADLINE
    _cacheSeconds: float = CACHE_SECONDS
    _maxCalls: int = MAX_CALLS
    _maxWaiting: int = MAX_WAITING
    _standing: Standing = standsAnyway
    _calls: DeferredSemaphore = attrs.field(init=False)
    _asking: "dict[str, _Question]" = attrs.field(init=False, factory=dict)
    _remembered: OrderedDict[str, tuple[float, Identity | str]] = attrs.field(init=False, factory=OrderedDict)
    _running: set[Deferred[Identity]] = attrs.field(init=False, factory=set)
    _stopped: bool = attrs.field(init=False, default=False)

    @_calls.default
    def _makeCalls(self) -> DeferredSemaphore:
        return DeferredSemaphore(self._maxCalls)

    def verify(self, leaf: x509.Certificate) -> Deferred[Identity]:
        """See `IVerifier.verify`."""
        if self._stopped:
            return fail(VerifierFault("the verifier is stopped"))
        if len(self._running) >= self._maxCalls + self._maxWaiting:
            return fail(VerifierFault(f"{self._maxWaiting} certificates wait for the SCEP server already"))
        question = ensureDeferred(self._verify(leaf))
        self._running.add(question)
        question.addTimeout(self._deadline, self._clock, self._late)
        question.addErrback(self._cancelled)
        return question.addBoth(self._ended, question)

    def stop(self) -> None:
        """Give all questions up: they fail with `VerifierFault`, and so does every later one."""
        self._stopped = True
        for question in tuple(self._running):
            question.cancel()

    def _late(self, result: object, seconds: float) -> NoReturn:
        raise VerifierFault(f"the SCEP server at {self._url} gave no decision within {seconds:g} s")

    def _cancelled(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):
            return Failure(VerifierFault("the question to the SCEP server was given up"))
        return failure

    def _ended(self, result: Identity | Failure, question: Deferred[Identity]) -> Identity | Failure:
        self._running.discard(question)
        return result

    async def _verify(self, leaf: x509.Certificate) -> Identity:
        try:
            self._standing(leaf)
        except CertificateRejected as e:
            raise VerifierRefused(str(e)) from e
        fingerprint = fingerprintOf(leaf)
        known = self._recall(fingerprint)
        if known is None:
            known = await self._shared(fingerprint, leaf)
        if isinstance(known, str):
            raise VerifierRefused(known)
        return known

    def _shared(self, fingerprint: str, leaf: x509.Certificate) -> "Deferred[Identity | str]":
        """Ask, or hear what is answered to whom asked about the same certificate just before."""
        question = self._asking.get(fingerprint)
        if question is not None:
            return question.join()

        def over() -> None:
            if self._asking.get(fingerprint) is question:
                del self._asking[fingerprint]

        def decided(known: Identity | str) -> Identity | str:
            self._remember(fingerprint, known)
            return known

        question = self._asking[fingerprint] = _Question(over)
        answer = question.join()
        call = self._calls.run(lambda: ensureDeferred(self._askUntilDecided(leaf)))
        question.ask(call.addTimeout(self._deadline, self._clock, self._late).addCallback(decided))
        return answer

    async def _askUntilDecided(self, leaf: x509.Certificate) -> Identity | str:
        for pause in RETRY_PAUSES:
            try:
                return await self._ask(leaf)
            except VerifierFault as e:
                _log.warn("asking about {subject}: {error}; once more", subject=subjectOf(leaf), error=str(e))
            await deferLater(self._clock, pause)
        return await self._ask(leaf)

    async def _ask(self, leaf: x509.Certificate) -> Identity | str:
        """One call. An identity, or the reason of a 401; a fault is raised."""
        headers = {HEADER: headerValue(leaf), "Accept": "application/json"}
        try:
            answer = await fetch(self.agent, b"GET", self._url, headers)
        except CancelledError:
            raise
        except Exception as e:  # names, connections, TLS, HTTP, bounds: all are faults, and none may admit
            raise VerifierFault(f"the SCEP server at {self._url}: {explain(e)}") from e
        return decision(answer, leaf)

    def _recall(self, fingerprint: str) -> Identity | str | None:
        until, known = self._remembered.get(fingerprint, (0.0, None))
        return known if self._clock.seconds() < until else None

    def _remember(self, fingerprint: str, known: Identity | str) -> None:
        if self._cacheSeconds <= 0:
            return
        self._remembered.pop(fingerprint, None)
        self._remembered[fingerprint] = (self._clock.seconds() + self._cacheSeconds, known)
        # All live equally long, so the first entry is always the next to expire.
        while (
            len(self._remembered) > MAX_REMEMBERED or next(iter(self._remembered.values()))[0] <= self._clock.seconds()
        ):
            self._remembered.popitem(last=False)


def scepAgent(
    reactor: IReactorTCP, caPath: FilePath | None, certPath: FilePath | None, keyPath: FilePath | None
) -> IAgent:
    """
    An agent for calls to the SCEP server, made of the files that the listener's settings name.

    :raises ConfigurationError: see `http.webAgent`.
    """

    def file(setting: str, path: FilePath | None) -> SettingFile | None:
        return None if path is None else SettingFile(setting, path)

    return webAgent(
        reactor,
        file("SWL_SCEP_CA_PATH", caPath),
        file("SWL_SCEP_CERT_PATH", certPath),
        file("SWL_SCEP_KEY_PATH", keyPath),
    )


def headerValue(leaf: x509.Certificate) -> str:
    """The certificate as the server reads it: PEM, every byte but letters, digits and ``_.-~`` percent-encoded."""
    return quote(leaf.public_bytes(Encoding.PEM).decode("ascii"), safe="")


def decision(answer: Answer, leaf: x509.Certificate) -> Identity | str:
    """
    What the server's answer decides: an identity, or the reason of a refusal.

    :raises VerifierFault: it decides nothing.
    """
    if answer.status == 401:
        return f"the SCEP server refused the certificate: {_message(answer)}"
    if not 200 <= answer.status < 300:
        raise VerifierFault(f"the SCEP server answered {answer.status}: {_message(answer)}")
    if answer.contentType not in _JSON_TYPES and not answer.contentType.endswith("+json"):
        raise VerifierFault(f"the SCEP server answered {answer.status} with {printable(answer.contentType)}, not JSON")
    told = _object(answer)
    uid, attributes = told.get("uid"), told.get("attributes")
    if not isinstance(uid, str):
        raise VerifierFault("the SCEP server's answer has no uid")
    if not (attributes is None or isinstance(attributes, dict)):
        raise VerifierFault("the attributes in the SCEP server's answer are no JSON object")
    try:
        return Identity(checkedUid(uid), leaf, attributes or {})
    except ValueError as e:
        raise VerifierFault(f"the SCEP server's uid can't be used: {e}") from e


def _object(answer: Answer) -> dict[str, object]:
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError) as e:
        raise VerifierFault(f"the SCEP server's answer is no JSON: {printable(str(e))}") from e
    if not isinstance(told, dict):
        raise VerifierFault("the SCEP server's answer is no JSON object")
    return told


def _message(answer: Answer) -> str:
    """The ``message`` of an answer that didn't admit, for logs."""
    try:
        message = _object(answer).get("message")
    except VerifierFault:
        message = None
    return printable(message) if isinstance(message, str) and message else "no reason given"
