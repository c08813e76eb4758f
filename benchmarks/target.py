"""
The target behind every tunnel: ``python -m benchmarks.target PORT QUICK_PORT``.

A visitor of PORT sends 9 bytes: a letter, and an 8-byte number.

======== ==================================================== ==========================================
letter   then                                                 number
======== ==================================================== ==========================================
``S``    discards what comes; after a time, sends a `REPORT`  seconds from the first byte on (a double)
``G``    sends without end                                    -
``E``    sends back what comes                                -
``H``    reads so many bytes; sends their SHA-256             bytes
``R``    sends so many bytes, those of `pattern`              bytes
======== ==================================================== ==========================================

A visitor of QUICK_PORT sends one byte, gets one back, and the target ends the connection first: so the one that waits
in TIME-WAIT is the side whose port doesn't change, and no number of connections uses the visitor's ports up.
"""

import hashlib
import os
import random
import socket
import struct
import sys
import threading
import time

HEADER = struct.Struct("!cQ")
DOUBLE = struct.Struct("!d")
#: Bytes received, and the times of the first and the last, by the clock that all processes of the machine share.
REPORT = struct.Struct("!Qdd")
#: What is given to one call: large enough that Python's own share is small.
BLOCK = 256 * 1024
#: Processes that serve QUICK_PORT, each one visitor at a time.
WORKERS = 16
BACKLOG = 4096
#: How long one of them waits for its byte: a timeval of 10 s.
LONGEST = struct.pack("ll", 10, 0)


def pattern(size: int) -> bytes:
    """The bytes that both ends know: random, and always the same."""
    return random.Random(size).randbytes(size)


def listen(port: int) -> socket.socket:
    """A listening socket on all addresses of its network namespace."""
    listening = socket.create_server(("0.0.0.0", port), backlog=BACKLOG)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those accepted inherit it
    return listening


def readExactly(sock: socket.socket, size: int) -> bytearray:
    """So many bytes, or EOFError."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            raise EOFError(f"{len(view)} of {size} bytes are missing")
        view = view[got:]
    return data


def drink(sock: socket.socket, seconds: float) -> tuple[int, float, float]:
    """Receive for so many seconds from the first piece on; the bytes after it, and when the first and last came."""
    buffer = bytearray(BLOCK)
    if not sock.recv_into(buffer):
        raise EOFError("nothing came")
    begun = now = time.monotonic()
    total = 0
    while now - begun < seconds and (got := sock.recv_into(buffer)):
        total += got
        now = time.monotonic()
    return total, begun, now


def sink(sock: socket.socket, number: int) -> None:
    """S: the clock runs here, where the bytes arrive, so that nothing in a buffer counts."""
    (seconds,) = DOUBLE.unpack(number.to_bytes(8, "big"))
    sock.sendall(REPORT.pack(*drink(sock, seconds)))
    buffer = bytearray(BLOCK)
    while sock.recv_into(buffer):
        pass


def source(sock: socket.socket, number: int) -> None:
    """G: until the visitor has enough, which ends in an error here."""
    block = bytes(BLOCK)
    while True:
        sock.sendall(block)


def echo(sock: socket.socket, number: int) -> None:
    """E."""
    while data := sock.recv(BLOCK):
        sock.sendall(data)


def digest(sock: socket.socket, number: int) -> None:
    """H."""
    sock.sendall(hashlib.sha256(readExactly(sock, number)).digest())


def give(sock: socket.socket, number: int) -> None:
    """R."""
    sock.sendall(pattern(number))


SERVICES = {b"S": sink, b"G": source, b"E": echo, b"H": digest, b"R": give}


def serve(sock: socket.socket) -> None:
    """One visitor of PORT, in a thread of its own."""
    with sock:
        try:
            letter, number = HEADER.unpack(readExactly(sock, HEADER.size))
            SERVICES[letter](sock, number)
        except (OSError, EOFError):
            pass  # the visitor sees it


def serveQuick(listening: socket.socket) -> None:
    """Visitors of QUICK_PORT, one after the other."""
    while True:
        with listening.accept()[0] as sock:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, LONGEST)
                sock.sendall(sock.recv(1))
            except OSError:
                pass  # the visitor sees it


def main() -> None:
    """Serve until killed."""
    listening, quick = (listen(int(port)) for port in sys.argv[1:3])
    for _ in range(WORKERS):
        if not os.fork():
            listening.close()
            serveQuick(quick)
    quick.close()
    threading.stack_size(256 * 1024)
    while True:
        threading.Thread(target=serve, args=[listening.accept()[0]], daemon=True).start()


if __name__ == "__main__":
    main()
