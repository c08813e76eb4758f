"""The original's three calls, with the original's words, and ``/healthz``."""

import attrs

from ...errors import NoSuchSession
from ...rules.tokens import OPERATE, READ
from ..wishes import PortSpec
from .app import TEXT, Answer, Api, Call, Shown, answer, route
from .bodies import AT_ONCE, Drain, Host, PortNumber, Uid, showWish


@attrs.frozen
class OpenCall:
    """The body of ``POST /open``, with the original's names."""

    uid: Uid
    port: PortNumber
    connect_address: Host
    connect_port: PortNumber

    def spec(self) -> PortSpec:
        """The wish."""
        return PortSpec(self.port, self.uid, self.connect_address, self.connect_port)

    @classmethod
    def of(cls, spec: PortSpec) -> "OpenCall":
        """The call that made the wish."""
        return cls(Uid(spec.uid), PortNumber(spec.port), Host(spec.targetHost), PortNumber(spec.targetPort))


@attrs.frozen
class CloseCall:
    """The body of ``DELETE /close``; the original has no `drain` (seconds)."""

    port: PortNumber
    drain: Drain = AT_ONCE


@route("POST", "/open", OPERATE)
async def open(api: Api, call: Call) -> Answer:
    """Open a port for a connector that is here."""
    wished = call.body(OpenCall)
    call.caller.claim(wished.port, wished.uid)

    async def make() -> tuple[None, Shown]:
        if not api.connectors.serving(wished.uid):
            raise NoSuchSession(wished.uid)
        return None, showWish(await api.ports.desire(wished.spec()))

    await api.change(call.caller, "port.put", str(wished.port), None, make)
    return Answer(200, b"TcpListener created successfully!", TEXT)


@route("GET", "/list", READ)
def list(api: Api, call: Call) -> Answer:
    """The objects given to ``/open``, of the ports that are open."""
    seen = [spec for spec in api.ports.specs() if call.caller.sees(spec.port, spec.uid)]
    return answer([attrs.asdict(OpenCall.of(spec)) for spec in seen])


@route("DELETE", "/close", OPERATE)
async def close(api: Api, call: Call) -> Answer:
    """Close a port; its visitors are ended, or have ``drain`` seconds to finish, for which this waits."""
    wanted = call.body(CloseCall)
    entry = api.ports.entry(wanted.port)
    call.caller.claim(wanted.port, entry.spec.uid)

    async def make() -> tuple[int, Shown]:
        return await api.ports.withdraw(wanted.port, wanted.drain), None

    await api.change(call.caller, "port.delete", str(wanted.port), showWish(entry.spec), make)
    return Answer(200, f"Task {wanted.port} canceled".encode(), TEXT)


@route("GET", "/healthz", None)
def healthz(api: Api, call: Call) -> Answer:
    """The process answers."""
    return Answer(200, b"ok", TEXT)
