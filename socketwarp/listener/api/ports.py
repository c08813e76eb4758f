"""``/v1/ports``: wishes, and what has become of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from ...errors import ChangeUnderWay, NoSuchPort, PreconditionFailed
from ...rules.tokens import OPERATE, READ
from ..entries import Entry
from ..wishes import PortSpec
from .app import Answer, Api, Call, Shown, answer, route
from .bodies import LONGEST_DRAIN, showWish, wishOf

#: Headers that make a change depend on what there is (RFC 9110 §13.1).
CONDITIONS = ("If-Match", "If-None-Match")


def tag(spec: PortSpec) -> str:
    """The wish's entity tag (RFC 9110 §8.8.3): another wish has another one."""
    written = json.dumps(showWish(spec), sort_keys=True).encode()
    return f'"{sha256(written).hexdigest()[:24]}"'


def stateOf(api: Api, entry: Entry) -> str:
    """What an entry is doing, in a word; docs/api.rst says what they mean."""
    if entry.isDraining:
        return "draining"
    if not entry.isBound:
        return "unbound"
    return "open" if api.connectors.serving(entry.spec.uid) else "parked"


def showPort(api: Api, entry: Entry) -> dict[str, object]:
    """A port as the API shows it: its wish, and its state."""
    return showWish(entry.spec) | {
        "state": stateOf(api, entry),
        "reason": entry.waitsFor or None,
        "connections": len(entry.visitors),
        "used": entry.used,
        "etag": tag(entry.spec),
    }


@route("GET", "/v1/ports", READ)
def listPorts(api: Api, call: Call) -> Answer:
    """All that are wished, and those that are drained."""
    seen = [entry for entry in api.ports.entries() if call.caller.sees(entry.spec.port, entry.spec.uid)]
    return answer([showPort(api, entry) for entry in seen])


@route("GET", "/v1/ports/<int:port>", READ, gives=("ETag",))
def getPort(api: Api, call: Call, port: int) -> Answer:
    """One of them."""
    entry = api.ports.entry(port)
    call.caller.claim(port, entry.spec.uid)
    return answer(showPort(api, entry), ETag=tag(entry.spec))


@route("PUT", "/v1/ports/<int:port>", OPERATE, "dry_run", headers=CONDITIONS, gives=("ETag", "Location"))
async def putPort(api: Api, call: Call, port: int) -> Answer:
    """Wish for a port, or change the wish; 0 is any free one. The same wish again changes nothing."""
    spec = wishOf(call.object(), port)
    _claim(call, spec)
    before = _find(api, port)
    if before is not None:
        _claim(call, before.spec)
    _checkConditions(call, before)
    if before is not None and before.closing:
        raise ChangeUnderWay(f"port {port} is being closed: wish for it again when that is over")
    if before is not None and before.spec == spec:
        return _answerPort(api, before, isDry=call.dryRun)
    if call.dryRun:
        with _changing(api, port):
            await api.ports.rehearse(spec)
        return answer(showWish(spec) | {"dry_run": True})
    action = "port.put" if before is None else "port.change"

    async def make() -> tuple[PortSpec, Shown]:
        with _changing(api, port):
            opened = await (api.ports.desire(spec) if before is None else api.ports.change(spec))
        return opened, showWish(opened)

    was = None if before is None else showWish(before.spec)
    opened = await api.change(call.caller, action, str(port), was, make)
    return _answerPort(api, api.ports.entry(opened.port), 201 if before is None else 200)


@route("DELETE", "/v1/ports/<int:port>", OPERATE, "dry_run", "drain", headers=CONDITIONS)
async def deletePort(api: Api, call: Call, port: int) -> Answer:
    """Close a port for good. Its visitors are ended, or have ``drain`` seconds to finish, for which this waits."""
    entry = api.ports.closable(port)
    _claim(call, entry.spec)
    _checkConditions(call, entry)
    drain = call.seconds("drain", LONGEST_DRAIN) or 0.0
    if call.dryRun:
        return answer({"port": port, "connections": len(entry.visitors), "dry_run": True})
    was = showWish(entry.spec)
    if drain:
        api.audit(call.caller, "port.delete", str(port), was, None, "begun")

    async def make() -> tuple[int, Shown]:
        return await api.ports.withdraw(port, drain), None

    ended = await api.change(call.caller, "port.delete", str(port), was, make)
    return answer({"port": port, "ended": ended})


def _answerPort(api: Api, entry: Entry, status: int = 200, isDry: bool = False) -> Answer:
    shown = showPort(api, entry) | ({"dry_run": True} if isDry else {})
    return answer(shown, status, ETag=tag(entry.spec), Location=f"/v1/ports/{entry.spec.port}")


def _find(api: Api, port: int) -> Entry | None:
    """The port's entry, if there is one that can be changed."""
    try:
        return api.ports.entry(port)
    except NoSuchPort:
        return None


def _claim(call: Call, spec: PortSpec) -> None:
    """Any free port isn't one of the caller's, if those are bounded; which one it will be isn't known yet."""
    call.caller.claim(spec.port, spec.uid)


def _checkConditions(call: Call, entry: Entry | None) -> None:
    """RFC 9110 §13.1: what has changed since the caller looked isn't changed by it."""
    ifMatch, ifNoneMatch = call.header("If-Match"), call.header("If-None-Match")
    current = None if entry is None else tag(entry.spec)
    if ifMatch is not None and not _matches(ifMatch, current):
        raise PreconditionFailed(f"If-Match: the port's ETag is {current or 'none, since it is not there'}")
    if ifNoneMatch is not None and _matches(ifNoneMatch.replace("W/", ""), current):  # weakly: RFC 9110 §13.1.2
        raise PreconditionFailed(f"If-None-Match: the port is there, its ETag is {current}")


def _matches(condition: str, current: str | None) -> bool:
    listed = [each.strip() for each in condition.split(",")]
    return current is not None and (listed == ["*"] or current in listed)


@contextmanager
def _changing(api: Api, port: int) -> Iterator[None]:
    """One change of a port at a time, or two callers who have both seen the same could both succeed."""
    if port in api.changing:
        raise ChangeUnderWay(f"another change of port {port} is under way: look at it again, then repeat yours")
    if port:
        api.changing.add(port)
    try:
        yield
    finally:
        api.changing.discard(port)
