"""
The table of calls, and what every one of them has in common: who calls, which arguments it takes, how it is answered.

A module of calls says `route` above each of its functions and is imported by the package. State comes in with `Api`.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from inspect import isawaitable
from typing import Any, ClassVar, TypeVar, cast

import attrs
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from ...errors import AccessDenied, BadRequest, SocketwarpError, StoreUnavailable, Unauthenticated
from ...rules.tokens import OPERATE, Role
from ..connectors import Connectors
from ..events import Events
from ..metrics import Metrics
from ..ports import Ports
from .access import Caller, Gate, addressOf, headerOf
from .bodies import BODY_LIMIT, parseBody, parseObject
from .problems import isNew, refuse, write, writeProblem, writeText
from .stream import EventStream

T = TypeVar("T")
#: What a thing looks like, for the audit log; `None`: it isn't there.
Shown = Mapping[str, object] | None
#: A change: what its caller gets, and what there is now.
Work = Callable[[], Awaitable[tuple[T, Shown]]]
#: Characters of a path that are logged of a call that was refused.
PATH_SHOWN = 200
JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"


@attrs.frozen
class Answer:
    """
    What a call is answered with.

    :ivar headers: beside the type and length of the body.
    """

    status: int
    body: bytes
    contentType: bytes = JSON
    headers: Mapping[bytes, bytes] = attrs.field(factory=dict)


def answer(value: object, status: int = 200, **headers: str) -> Answer:
    """JSON; headers with ``_`` for ``-``."""
    named = {name.replace("_", "-").encode(): each.encode() for name, each in headers.items()}
    return Answer(status, json.dumps(value).encode(), headers=named)


@attrs.frozen
class Call:
    """
    A call, let in.

    :ivar caller: who makes it.
    :ivar headers: those that its route reads.
    """

    request: Request
    caller: Caller
    headers: tuple[str, ...] = ()

    @property
    def dryRun(self) -> bool:
        """
        Whether to say only what would be.

        :raises errors.BadRequest: when it can't be understood; then nothing must be changed.
        """
        match self.argument("dry_run"):
            case None | "0":
                return False
            case "1":
                return True
            case _:
                raise BadRequest("dry_run: 1 or 0 is needed")

    def argument(self, name: str) -> str | None:
        """
        An argument of the query, the only one of its name; `None` without one.

        :raises errors.BadRequest: when there are several, or it isn't text.
        """
        given = (self.request.args or {}).get(name.encode(), [])
        if len(given) > 1:
            raise BadRequest(f"{name}: given {len(given)} times")
        try:
            return given[0].decode() if given else None
        except UnicodeDecodeError:
            raise BadRequest(f"{name}: not UTF-8") from None

    def seconds(self, name: str, highest: float) -> float | None:
        """
        An argument that is a number of seconds, from 0 to `highest`.

        :raises errors.BadRequest: when it isn't.
        """
        text = self.argument(name)
        if text is None:
            return None
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII) or float(text) > highest:
            raise BadRequest(f"{name}: a number of seconds from 0 to {highest:.16g} is needed")
        return float(text)

    def number(self, name: str, highest: int) -> int | None:
        """
        An argument that is a whole number, from 1 to `highest`.

        :raises errors.BadRequest: when it isn't.
        """
        text = self.argument(name)
        if text is None:
            return None
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 1 <= int(text) <= highest:
            raise BadRequest(f"{name}: a whole number from 1 to {highest} is needed")
        return int(text)

    def header(self, name: str) -> str | None:
        """A header of the request, one of those that the route has named."""
        assert name in self.headers, "else the description would know nothing of it"
        return headerOf(self.request, name)

    def body(self, shape: type[T]) -> T:
        """
        The request's body.

        :raises errors.BadRequest: when it isn't a `shape`.
        """
        return parseBody(self._read(), shape)

    def object(self) -> dict[str, object]:
        """
        The request's body, whatever JSON object it is.

        :raises errors.BadRequest: when it is none.
        """
        return parseObject(self._read())

    def _read(self) -> bytes:
        assert self.request.content is not None, "a request is handled once its body is there"
        return cast(bytes, self.request.content.read(BODY_LIMIT + 1))  # a file, Twisted doesn't say of what


@attrs.define(eq=False)
class Api:
    """
    What the calls work on.

    :ivar auditFault: says why changes can't be noted, if so; then none is made.
    :ivar changing: ports of which a change is under way.
    :ivar streams: callers who follow events.
    :ivar probing: probes that are under way.
    :ivar app: klein's table of routes, bound to the instance.
    """

    clock: IReactorTime
    connectors: Connectors
    ports: Ports
    events: Events
    gate: Gate = attrs.field(factory=Gate)
    auditFault: Callable[[], str | None] = lambda: None
    metrics: Metrics = attrs.field(init=False)
    changing: set[int] = attrs.field(factory=set, init=False)
    streams: set[EventStream] = attrs.field(factory=set, init=False)
    probing: int = attrs.field(default=0, init=False)
    app: ClassVar[Klein] = Klein()

    log: ClassVar[Logger] = Logger(namespace="socketwarp.listener.api")

    @metrics.default
    def _makeMetrics(self) -> Metrics:
        return Metrics(self.events, self.connectors, self.ports)

    def audit(
        self, caller: Caller, action: str, subject: str, before: Shown, after: Shown, outcome: str = "done"
    ) -> None:
        """
        Note a change.

        :param subject: what was changed: a port, a uid, a connection's id.
        :param before: what it was; `None`: not there. ``after``: the same of what it is now.
        :param outcome: ``done``, ``begun`` when that takes time, or the code of the error.
        """
        self.events.emit(
            "api.changed",
            who=caller.name,
            peer=caller.address,
            action=action,
            subject=subject,
            before=before,
            after=after,
            outcome=outcome,
        )

    def checkAudit(self, request: Request) -> None:
        """
        Before a change, or a dry run of it, which may still be made.

        :raises errors.StoreUnavailable: it couldn't be noted.
        """
        fault = self.auditFault()
        isTry = (request.args or {}).get(b"dry_run") == [b"1"]
        if fault is not None and not isTry:
            raise StoreUnavailable(f"{fault}: nothing is changed until it can")

    def turnedAway(self, request: Request, who: str, error: SocketwarpError) -> None:
        """Note that a caller may not do what it wants to."""
        self.events.emit(
            "api.refused",
            who=who,
            peer=addressOf(request),
            method=request.method.decode(errors="replace"),
            path=request.path.decode(errors="replace")[:PATH_SHOWN],
            code=error.code,
            reason=str(error),
        )

    async def change(self, caller: Caller, action: str, subject: str, before: Shown, work: Work[T]) -> T:
        """
        Make a change that takes a while, whether or not its caller waits for it, and note how it ended.

        :param work: makes it, and says what is there now.
        """

        async def make() -> T:
            try:
                made, after = await work()
            except SocketwarpError as error:
                self.audit(caller, action, subject, before, before, error.code)
                raise
            self.audit(caller, action, subject, before, after)
            return made

        waiting: Deferred[T] = Deferred()
        Deferred.fromCoroutine(make()).chainDeferred(waiting)
        return await waiting

    @app.handle_errors(SocketwarpError)
    def refused(self, request: IRequest, failure: Failure) -> bytes:
        """An error that has a status."""
        error = failure.value
        assert isinstance(request, Request) and isinstance(error, SocketwarpError)
        return refuse(request, error)

    @app.handle_errors(HTTPException)
    def unrouted(self, request: IRequest, failure: Failure) -> bytes:
        """No such path, or not by that method."""
        error = failure.value
        assert isinstance(request, Request) and isinstance(error, HTTPException)
        for name, value in error.get_headers():
            if name == "Allow":
                request.setHeader(b"Allow", value.encode())
        status = error.code or 500
        if isNew(request):
            return writeProblem(request, status, error.name.lower().replace(" ", "-"), error.name)
        return writeText(request, status, error.name)

    @app.handle_errors(Exception)
    def broken(self, request: IRequest, failure: Failure) -> bytes:
        """A fault of ours: the answer doesn't tell strangers about our insides, the log does."""
        assert isinstance(request, Request)
        self.log.failure("{method} {path} failed", failure, method=request.method, path=request.path)
        return refuse(request, SocketwarpError("an internal error; the listener's log says more"))


# A uid may be a URI, and has two slashes then.
Api.app.url_map.merge_slashes = False

Handler = Callable[..., Answer | Awaitable[Answer | None]]  # with the arguments that its path names


@attrs.frozen
class Route:
    """
    A line of the table.

    :ivar path: as werkzeug writes it.
    :ivar role: what a caller needs; `None`: it may be anybody.
    :ivar arguments: what the query may have. ``headers``: which headers of the request count, besides those that say
        who calls. ``gives``: which headers the answer may have, besides those of every answer.
    """

    method: str
    path: str
    role: Role | None
    arguments: tuple[str, ...]
    handler: Handler
    headers: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()


#: The table of calls.
ROUTES: list[Route] = []


def route(
    method: str,
    path: str,
    role: Role | None,
    *arguments: str,
    headers: tuple[str, ...] = (),
    gives: tuple[str, ...] = (),
) -> Callable[[Handler], Handler]:
    """
    Put a function of `Api`, `Call` and the path's arguments into the table.

    :param role: what the caller needs; `None`: it may be anybody.
    :param arguments: what the query may have. Under /v1, others are refused: a misspelt ``dry_run`` must not change
        anything.
    :param headers: and ``gives``: see `Route`; no others can be read, or given.
    """
    known = {name.encode() for name in gives}

    def register(handler: Handler) -> Handler:
        @wraps(handler)
        async def serve(api: Api, request: Request, **named: Any) -> bytes:  # Any: what the path's converters make
            caller = Caller("anonymous", "")
            try:
                if role is not None:
                    caller = api.gate.identify(request)
                    caller.require(role)
                if isNew(request):
                    _checkArguments(request, arguments)
                elif b"dry_run" in (request.args or {}):  # else it would be done
                    raise BadRequest("dry_run: the original's calls can't be tried; those under /v1 can")
                if role == OPERATE:
                    api.checkAudit(request)
                answered = handler(api, Call(request, caller, headers), **named)
                given = await answered if isawaitable(answered) else answered
            except (Unauthenticated, AccessDenied) as error:
                api.turnedAway(request, caller.name, error)
                raise
            if given is None:
                return b""  # it has answered by itself
            assert given.headers.keys() <= known, "else the description would know nothing of them"
            for name, value in given.headers.items():
                request.setHeader(name, value)
            return write(request, given.status, given.contentType, given.body)

        Api.app.route(path, methods=[method])(serve)
        ROUTES.append(Route(method, path, role, arguments, handler, headers, gives))
        return handler

    return register


def _checkArguments(request: Request, known: tuple[str, ...]) -> None:
    for name in request.args or {}:
        if name.decode(errors="replace") not in known:
            allowed = ", ".join(known) or "none"
            raise BadRequest(f"{name.decode(errors='replace')!r} is no argument of this call; it has {allowed}")
