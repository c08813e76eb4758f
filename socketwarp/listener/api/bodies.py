"""What the body of a call may be: JSON objects, read strictly, and everything that is wrong with one said at once."""

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Literal, NewType, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ...errors import BadRequest, MalformedPreamble, RequestTooLarge
from ...wire.preamble import checkHost
from ..wishes import PortLimits, PortOptions, PortSpec, Source

#: Bytes of a request's body; the calls need some hundred, but a port may have a thousand sources.
BODY_LIMIT = 65536
#: Characters of a uid: a common name has at most 64 (RFC 5280, ub-common-name), a SAN URI may be longer.
UID_LIMIT = 255
#: Seconds that visitors may be given to finish, at most: a day.
LONGEST_DRAIN = 86400.0
#: Seconds for which a connector may be sent away, at most: a year.
LONGEST_DENIAL = 366 * 86400.0

T = TypeVar("T")
Uid = NewType("Uid", str)
Host = NewType("Host", str)
PortNumber = NewType("PortNumber", int)
Drain = NewType("Drain", float)
#: Visitors have no time to finish.
AT_ONCE = Drain(0.0)
IpAddress = NewType("IpAddress", str)
ShortText = NewType("ShortText", str)
NOTHING = ShortText("")
PatienceSeconds = NewType("PatienceSeconds", float)
#: Seconds that a probe takes at most, unless it is told otherwise.
PATIENCE = PatienceSeconds(10.0)
#: And at most when it is: a caller's own patience ends about there.
LONGEST_PATIENCE = 60.0
#: Characters that a probe sends.
SHORT_TEXT = 4096


def snake(name: str) -> str:
    """Our names as the API writes them: ``bind_address``."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _uid(value: object, _: object) -> Uid:
    if not isinstance(value, str) or not 0 < len(value) <= UID_LIMIT or not value.isprintable():
        raise ValueError(f"a text of 1 to {UID_LIMIT} printable characters is needed")
    return Uid(value)


def _host(value: object, _: object) -> Host:
    if not isinstance(value, str):
        raise ValueError("a text is needed: a host name or an IP address")
    try:
        checkHost(value.removeprefix("[").removesuffix("]"))
    except MalformedPreamble as error:
        raise ValueError(str(error)) from None
    return Host(value)


def _port(value: object, _: object) -> PortNumber:
    if type(value) is not int or not 0 < value < 65536:  # bool is an int to isinstance
        raise ValueError("a whole number from 1 to 65535 is needed")
    return PortNumber(value)


def _drain(value: Any, _: object) -> Drain:  # Any: whatever JSON holds
    if type(value) not in (int, float) or not 0 <= value <= LONGEST_DRAIN:
        raise ValueError(f"a number of seconds from 0 to {LONGEST_DRAIN:.16g} is needed")
    return Drain(value)


def _patience(value: Any, _: object) -> PatienceSeconds:  # Any: as above
    if type(value) not in (int, float) or not 0 < value <= LONGEST_PATIENCE:
        raise ValueError(f"a number of seconds above 0, up to {LONGEST_PATIENCE:.16g}, is needed")
    return PatienceSeconds(value)


def _shortText(value: object, _: object) -> ShortText:
    if not isinstance(value, str) or len(value) > SHORT_TEXT or value != value.encode(errors="replace").decode():
        raise ValueError(f"a text of at most {SHORT_TEXT} characters is needed")
    return ShortText(value)


def _ipAddress(value: object, _: object) -> IpAddress:
    """As a visitor's is read (`interfaces.plainAddress`)."""
    if not isinstance(value, str):
        raise ValueError("an IP address is needed")
    address = ip_address(value.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return IpAddress(str(mapped or address))


def _exactly(wants: str, *kinds: type) -> Callable[[Any, object], Any]:  # Any: whatever JSON holds
    """What is of one of these types; cattrs alone would make a number of ``"80"`` and of ``true``."""

    def check(value: Any, _: object) -> Any:  # Any: as above
        if type(value) not in kinds:
            raise ValueError(f"{wants} is needed")
        return value

    return check


def _literal(value: Any, kind: Any) -> Any:  # Any: as above
    if not any(value is word or (type(value) is type(word) and value == word) for word in get_args(kind)):
        raise ValueError(f"one of {', '.join(map(repr, get_args(kind)))} is needed")
    return value


def _network(value: object, _: object) -> Source:
    if not isinstance(value, str):
        raise ValueError("a network is needed, such as 10.0.0.0/8")
    return ip_network(value)


def _list(value: object, kind: Any) -> tuple[object, ...]:  # Any: a tuple's type
    if not isinstance(value, list):
        raise ValueError("a list is needed")
    held: list[object] = converter.structure(value, list[get_args(kind)[0]])  # type: ignore[arg-type, misc]  # made as it runs
    return tuple(held)


def _isLiteral(kind: Any) -> bool:  # Any: a type, or a form of typing's
    return get_origin(kind) is Literal


def _isTuple(kind: Any) -> bool:  # Any: as above
    return get_origin(kind) is tuple


def _makeConverter() -> cattrs.Converter:
    made = cattrs.Converter(forbid_extra_keys=True)
    for kind, hook in (
        (Uid, _uid),
        (Host, _host),
        (PortNumber, _port),
        (Drain, _drain),
        (PatienceSeconds, _patience),
        (ShortText, _shortText),
        (IpAddress, _ipAddress),
        (int, _exactly("a whole number", int)),
        (float, _exactly("a number", int, float)),
        (str, _exactly("a text", str)),
        (bool, _exactly("true or false", bool)),
    ):
        made.register_structure_hook(kind, hook)
    made.register_structure_hook_func(lambda kind: kind == Source, _network)
    made.register_structure_hook_func(_isLiteral, _literal)
    made.register_structure_hook_func(_isTuple, _list)
    for network in (IPv4Network, IPv6Network):
        made.register_unstructure_hook(network, str)
    return made


converter = _makeConverter()

#: The fields of a wish that are more than their types.
_WISHED: dict[str, Callable[[Any, Any], Any]] = {  # Any: cattrs' hooks
    "uid": _uid,
    "targetHost": _host,
    "targetPort": _port,
}


def _rename(kind: type[attrs.AttrsInstance]) -> None:
    """Read and write a record with its names in snake case."""
    fields: Any = attrs.fields(kind)  # Any: attrs gives a tuple of a class of its own making
    names: Any = {field.name: override(rename=snake(field.name)) for field in fields}  # Any: keywords of cattrs
    hooks: Any = {  # Any: as above
        field.name: override(rename=snake(field.name), struct_hook=_WISHED.get(field.name)) for field in fields
    }
    read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **hooks)
    converter.register_structure_hook(kind, read)
    converter.register_unstructure_hook(kind, make_dict_unstructure_fn(kind, converter, **names))


for _kind in (PortLimits, PortOptions, PortSpec):
    _rename(_kind)


def parseObject(body: bytes) -> dict[str, object]:
    """
    Read a body that has to be a JSON object.

    :raises errors.BadRequest: when it isn't one.
    """
    if len(body) > BODY_LIMIT:
        raise RequestTooLarge(f"the body has more than {BODY_LIMIT} bytes")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value


def parseBody(body: bytes, shape: type[T]) -> T:
    """
    Make a call of a request's body.

    :raises errors.BadRequest: saying everything that is wrong with it.
    """
    return shaped(parseObject(body), shape)


def shaped(value: dict[str, object], shape: type[T]) -> T:
    """
    Make a call of a JSON object.

    :raises errors.BadRequest: saying everything that is wrong with it.
    """
    try:
        return converter.structure(value, shape)
    except cattrs.BaseValidationError as error:
        told = "; ".join(cattrs.transform_error(error, format_exception=_explain))
        raise BadRequest(re.sub(r"@ \$[.\w\[\]]*", lambda place: snake(place[0]), told)) from None


#: What the API shows of a port beside its wish. A wish may have it, so that what GET gives can be PUT, and it counts
#: for nothing: it may well have changed since.
READ_ONLY = frozenset(("state", "reason", "connections", "used", "etag"))


def wishOf(value: dict[str, object], port: int) -> PortSpec:
    """
    The wish for a port, of a JSON object that needn't repeat the port, and may be all that the API shows of one.

    :raises errors.BadRequest: saying everything that is wrong with it.
    """
    wish = {"port": port} | {name: each for name, each in value.items() if name not in READ_ONLY}
    if wish["port"] != port:
        raise BadRequest(f"port: the body's port isn't the path's, which is {port}")
    return shaped(wish, PortSpec)


def showWish(spec: PortSpec) -> dict[str, object]:
    """A wish as the API writes it, which can be read again by `wishOf`."""
    shown: dict[str, object] = converter.unstructure(spec)
    return shown


def _explain(error: BaseException, _: type | None) -> str:
    match error:
        case KeyError():
            return "a required field is missing"
        case cattrs.ForbiddenExtraKeysError():
            return f"unknown fields: {', '.join(sorted(error.extra_fields))}"
        case _:
            return re.sub("^[a-z]+[A-Z][A-Za-z]*", lambda name: snake(name[0]), str(error))
