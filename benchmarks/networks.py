"""
What lies between the public and the closed side.

The network namespaces have no names: they and their devices vanish with the last file descriptor and process in them,
however the benchmark ends. The calling thread moves to the public side for as long as a site is open, so visitors are
plain sockets of this process.
"""

import contextlib
import ctypes
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import attrs

from benchmarks.processes import Failed, Process, run
from benchmarks.relay import DELAY, LONGEST, MTU, SEED

MEBIBYTE = 1024 * 1024
ROOT = Path(__file__).parent.parent
#: Documentation addresses (RFC 5737): these networks are seen by nobody else.
PUBLIC, CLOSED, PREFIX, NETWORK = "192.0.2.1", "192.0.2.2", 30, "192.0.2.0/30"
LOOPBACK = "127.0.0.1"
#: Congestion control of TCP: Linux's default, which needn't be this host's, and another one that it has.
CUBIC, BBR = "cubic", "bbr"
_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_CLONE_NEWNET = 0x40000000  # sched.h
TUN = "/dev/net/tun"
#: linux/if_tun.h: a device of IP packets without a header before them, and the request for it.
_IFF_TUN, _IFF_NO_PI, _TUNSETIFF = 0x0001, 0x1000, 0x400454CA
_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class Site:
    """
    Two sides and a network.

    :ivar publicHost: the address by which the closed side reaches the public one.
    :ivar closedHost: the address by which visitors reach the target without a tunnel.
    :ivar closed: a context in which processes are started on the closed side.
    :ivar facts: what was found or set, for the report.
    """

    publicHost: str = LOOPBACK
    closedHost: str = LOOPBACK
    closed: Callable[[], AbstractContextManager[None]] = nullcontext
    facts: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Network:
    """
    One that can be set up.

    :ivar seconds: how long one load lasts, unless told otherwise.
    :ivar payload: bytes that each tunnel has to carry rightly each way, before it is measured.
    :ivar pause: seconds before each load, in which what the last one left in buffers drains.
    :ivar build: sets it up; logs go to the directory.
    :ivar missing: says why it can't be set up here, if so.
    """

    name: str
    title: str
    seconds: float
    build: Callable[[Path], AbstractContextManager[Site]]
    payload: int = 8 * MEBIBYTE
    pause: float = 0.0
    missing: Callable[[], str | None] = lambda: None


def _missing(device: str = os.devnull, congestion: str = CUBIC) -> str | None:
    """Why two network namespaces, with such a device and congestion control, can't be had here."""
    if os.geteuid():
        return "needs root"
    if congestion not in _AVAILABLE.read_text().split():
        return f"the kernel has no {congestion}, or has to be told: modprobe tcp_{congestion}"
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError as error:
        return f"{device}: {error.strerror}"
    return None


@contextmanager
def loopback(directory: Path) -> Iterator[Site]:
    """Both sides on one host, MTU 65,536."""
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    yield Site(facts={"link": "lo, MTU 65,536", "TCP": congestion})


def _call(function: str, *arguments: int) -> None:
    """Call the C library; OSError when it fails."""
    if getattr(_libc, function)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _here() -> int:
    """A descriptor of this thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _unshare(stack: ExitStack) -> int:
    """Move this thread to a new network namespace; a descriptor of it."""
    _call("unshare", _CLONE_NEWNET)
    namespace = _here()
    stack.callback(os.close, namespace)
    run(["ip", "link", "set", "lo", "up"])
    return namespace


@contextmanager
def _within(namespace: int) -> Iterator[None]:
    """This thread in another network namespace, for a while."""
    before = _here()
    try:
        _call("setns", namespace, _CLONE_NEWNET)
        yield
    finally:
        _call("setns", before, _CLONE_NEWNET)
        os.close(before)


def _raise(device: str, address: str, shaper: str = "", congestion: str = CUBIC) -> None:
    """Give a device its address and its queue, and TCP over it its congestion control."""
    run(["ip", "address", "add", f"{address}/{PREFIX}", "dev", device, "noprefixroute"])
    run(["ip", "link", "set", device, "mtu", "1500", "up"])
    run(["ip", "route", "add", NETWORK, "dev", device, "src", address, "congctl", congestion])
    if shaper:
        run(["tc", "qdisc", "add", "dev", device, "root", *shaper.split()])


@contextmanager
def _sides() -> Iterator[tuple[int, int]]:
    """Two new network namespaces, by their descriptors: the closed one, and the public one, where this thread is."""
    with ExitStack() as stack:
        before = _here()
        stack.callback(os.close, before)
        stack.callback(_call, "setns", before, _CLONE_NEWNET)
        closed = _unshare(stack)
        yield closed, _unshare(stack)


def veth(shaper: str = "") -> Callable[[Path], AbstractContextManager[Site]]:
    """Two network namespaces joined by a veth pair with MTU 1,500; each end with this queueing discipline."""

    @contextmanager
    def build(directory: Path) -> Iterator[Site]:
        with _sides() as (closed, public):
            peer = f"/proc/{os.getpid()}/fd/{closed}"
            run(["ip", "link", "add", "sw0", "type", "veth", "peer", "name", "sw1", "netns", peer])
            _raise("sw0", PUBLIC, shaper)
            with _within(closed):
                _raise("sw1", CLOSED, shaper)
            _call("setns", public, _CLONE_NEWNET)
            yield Site(PUBLIC, CLOSED, lambda: _within(closed), facts=_describe("sw0", shaper))

    return build


def _describe(device: str, shaper: str) -> dict[str, str]:
    """What the kernel says of a device. Segmentation offload stays as the kernel has it."""
    facts = {"link": "veth pair, MTU 1,500", "queue": shaper or "none", "TCP": CUBIC}
    fields = run(["ip", "-d", "-o", "link", "show", device]).split()
    for name in ("gso_max_size", "gso_max_segs", "tso_max_size", "gro_max_size"):
        if name in fields:
            facts[name] = fields[fields.index(name) + 1]
    with contextlib.suppress(Failed):
        wanted = ("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload", "tx-udp-seg")
        for line in run(["ethtool", "-k", device]).splitlines():
            name, _, state = line.strip().partition(": ")
            if name.startswith(wanted):
                facts[name] = state
    return facts


def _tun(name: str) -> int:
    """A new TUN device in this thread's namespace: a descriptor for its packets. The device goes when it is closed."""
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def relayed(loss: float, congestion: str = CUBIC) -> Callable[[Path], AbstractContextManager[Site]]:
    """Two network namespaces, and a relay of IP packets between them that delays them all and loses this share."""

    @contextmanager
    def build(directory: Path) -> Iterator[Site]:
        with _sides() as (closed, public), ExitStack() as stack:
            devices = []
            for namespace, name, address in ((closed, "sw1", CLOSED), (public, "sw0", PUBLIC)):
                with _within(namespace):
                    devices.append(_tun(name))
                    stack.callback(os.close, devices[-1])
                    run(["ip", "link", "set", name, "txqueuelen", str(LONGEST)])
                    _raise(name, address, congestion=congestion)
            command = [sys.executable, "-m", "benchmarks.relay", *map(str, devices), str(loss)]
            relay = Process.start("relay", command, directory, {"PYTHONPATH": str(ROOT)}, devices)
            stack.callback(relay.stop)
            facts = {
                "link": f"a relay of IP packets in user space, MTU {MTU:,}, {2 * DELAY * 1000:.0f} ms there and back",
                "loss": f"{loss:.0%} each way (seed {SEED})" if loss else "none",
                "TCP": congestion,
            }
            yield Site(PUBLIC, CLOSED, lambda: _within(closed), facts)

    return build


NETWORKS = (
    Network("loopback", "Loopback", 1, loopback),
    Network("veth", "veth pair, MTU 1,500", 1, veth(), missing=_missing),
    Network(
        "shaped",
        "veth pair, MTU 1,500, 100 Mbit/s",
        2,
        veth("tbf rate 100mbit burst 32kb latency 50ms"),
        pause=0.5,
        missing=_missing,
    ),
    Network("delayed", "Relay, 50 ms", 1.5, relayed(0), missing=partial(_missing, TUN)),
    Network("lossy", "Relay, 50 ms and 1 % loss", 2, relayed(0.01), MEBIBYTE, missing=partial(_missing, TUN)),
    Network(
        "lossy-bbr",
        "Relay, 50 ms and 1 % loss, TCP with BBR",
        2,
        relayed(0.01, BBR),
        MEBIBYTE,
        missing=partial(_missing, TUN, BBR),
    ),
)
