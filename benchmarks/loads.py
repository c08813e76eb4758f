"""
What visitors do: functions that load an address and return figures.

An address is where visitors connect to: a tunnel's entry port, or the target itself. Every wait is bounded by
``PATIENCE``; whatever fails raises OSError, EOFError or Failed. The bytes of ``target`` are spoken here.
"""

import contextlib
import hashlib
import multiprocessing
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from benchmarks.processes import PATIENCE, Failed, run
from benchmarks.target import BLOCK, DOUBLE, HEADER, REPORT, drink, pattern, readExactly

Address = tuple[str, int]
#: Visitors at a time when new connections are counted: enough to keep every process of a tunnel busy.
CROWD = 16
#: Seconds between two keystrokes.
TYPING = 0.005
_fork = multiprocessing.get_context("fork")  # so that children are in this thread's network namespace
_LINGER_NOT = struct.pack("ii", 1, 0)


def connect(address: Address, patience: float = PATIENCE) -> socket.socket:
    """A connection whose calls give up after so many seconds, with BlockingIOError: the kernel's work, not Python's."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        longest = struct.pack("ll", int(patience), 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, longest)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, longest)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def visit(address: Address, letter: bytes, number: int = 0, patience: float = PATIENCE) -> Iterator[socket.socket]:
    """A connection to the target that has asked for a service; at the end it is reset, whatever is on its way."""
    with connect(address, patience) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(HEADER.pack(letter, number))
        try:
            yield sock
        finally:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that is blocked in it


def knock(address: Address) -> bool | None:
    """Whether a byte comes back from the target through this address; else None."""
    try:
        with visit(address, b"E", patience=2) as sock:
            sock.sendall(b"k")
            return sock.recv(1) == b"k" or None
    except OSError:
        return None


def verify(address: Address, size: int) -> None:
    """Send and get so many bytes; both must be right."""
    expected = pattern(size)
    with visit(address, b"H", size) as sock:
        sock.sendall(expected)
        if readExactly(sock, 32) != hashlib.sha256(expected).digest():
            raise Failed(f"of {size} bytes inwards, other ones arrived")
    with visit(address, b"R", size) as sock:
        if readExactly(sock, size) != expected:
            raise Failed(f"of {size} bytes outwards, other ones arrived")


def _send(sock: socket.socket) -> None:
    """Send until the connection ends."""
    block = bytes(BLOCK)
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(block)


#: Bytes, and the monotonic times of the first and the last of them.
Moved = tuple[int, float, float]


def pour(address: Address, seconds: float) -> Moved:
    """One stream from visitor to target. The target says how many bytes it got, and when."""
    with visit(address, b"S", int.from_bytes(DOUBLE.pack(seconds), "big"), seconds + PATIENCE) as sock:
        sender = threading.Thread(target=_send, args=[sock])
        sender.start()
        try:
            total, first, last = REPORT.unpack(readExactly(sock, REPORT.size))
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            sender.join()
    return total, first, last


def draw(address: Address, seconds: float) -> Moved:
    """One stream from target to visitor."""
    with visit(address, b"G") as sock:
        return drink(sock, seconds)


Transfer = Callable[[Address, float], Moved]


def flow(transfer: Transfer, address: Address, seconds: float, streams: int = 1) -> float:
    """Bytes per second of so many streams at a time: all bytes, from the first one's start to the last one's end."""
    with ThreadPoolExecutor(streams) as pool:
        done = [pool.submit(transfer, address, seconds) for _ in range(streams)]
        moved = [each.result() for each in done]
    begun, ended = min(first for _, first, _ in moved), max(last for _, _, last in moved)
    return sum(total for total, _, _ in moved) / max(ended - begun, 1e-9)


@contextlib.contextmanager
def beside(transfer: Transfer, address: Address, seconds: float) -> Iterator[None]:
    """While it lasts, a bulk transfer runs in a process of its own; it must have moved something."""
    with ProcessPoolExecutor(1, mp_context=_fork) as pool:
        done = pool.submit(transfer, address, seconds)
        yield
        if not done.result(seconds + PATIENCE)[0]:
            raise Failed("the bulk transfer stood still")


def pingPong(address: Address, seconds: float, pause: float = 0.0) -> list[float]:
    """One byte there and back, again and again, with a pause between: the seconds each took, in order of length."""
    trips: list[float] = []
    with visit(address, b"E") as sock:
        deadline = time.perf_counter() + seconds
        while not trips or time.perf_counter() < deadline:
            begun = time.perf_counter()
            sock.send(b"p")
            if not sock.recv(1):
                raise EOFError("the tunnel ended the connection")
            trips.append(time.perf_counter() - begun)
            if pause:
                time.sleep(pause)
    return sorted(trips)


def percentile(ordered: list[float], percent: float) -> float:
    """The nearest-rank percentile."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _connectAgain(address: Address, seconds: float) -> float:
    """Connect, exchange a byte, see the end; again and again. Connections per second."""
    count, begun = 0, time.perf_counter()
    while (now := time.perf_counter()) - begun < seconds or not count:
        with connect(address) as sock:
            sock.sendall(b"c")
            if sock.recv(1) != b"c" or sock.recv(1) != b"":
                raise Failed("a short connection got other bytes than its own")
        count += 1
    return count / (now - begun)


def connections(address: Address, seconds: float) -> float:
    """New connections per second, each with one byte there and back, by ``CROWD`` visitors at a time."""
    with ProcessPoolExecutor(CROWD, mp_context=_fork) as pool:
        done = [pool.submit(_connectAgain, address, seconds) for _ in range(CROWD)]
        return sum(each.result(seconds + PATIENCE) for each in done)


@contextlib.contextmanager
def idle(address: Address, count: int) -> Iterator[None]:
    """So many connections that have seen one byte there and back, and then nothing."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        for number in range(count):
            if time.monotonic() > deadline:
                raise Failed(f"only {number} of {count} connections at a time within {PATIENCE:.0f} s")
            sock = stack.enter_context(visit(address, b"E"))
            sock.sendall(b"i")
            try:
                got = sock.recv(1)
            except BlockingIOError:
                raise Failed(f"connection {number + 1} of {count} at a time hangs") from None
            if got != b"i":
                raise Failed(f"connection {number + 1} of {count} at a time was ended")
        yield


def http(address: Address, seconds: float) -> float:
    """Requests per second, as wrk counts them: 2 threads, 64 connections that are kept."""
    host, port = address
    said = run(["wrk", "-t2", "-c64", f"-d{max(1, round(seconds))}s", f"http://{host}:{port}/"])
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if not found or "Socket errors" in said or "Non-2xx" in said:
        raise Failed(f"wrk: {said.strip()}")
    return float(found[1])
