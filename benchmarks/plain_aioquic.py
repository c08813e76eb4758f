"""
The least tunnel on plain aioquic and asyncio, to compare with: Reno, one datagram for each call, aioquic's own limits.

| ``python -m benchmarks.plain_aioquic listen DIRECTORY HOST UDP_PORT ENTRY:TARGET …``
| ``python -m benchmarks.plain_aioquic dial DIRECTORY HOST UDP_PORT``

The directory holds certificates and keys as `tunnels.Kit` makes them. A stream begins with the target's port (2 bytes).
"""

import asyncio
import socket
import ssl
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamReset

#: Bytes of one stream that wait to be acknowledged, before its TCP side isn't read any more.
WINDOW = 256 * 1024
#: Seconds between two looks at it.
PAUSE = 0.002
PIECE = 64 * 1024
ALPN = ["plain"]
#: What ends both directions of a stream at once; aioquic asserts that nothing is written after a reset.
ABORTED = (OSError, AssertionError)

Tcp = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def configured(directory: Path, name: str, isClient: bool) -> QuicConfiguration:
    """Mutual TLS with the kit's certificates; the rest as aioquic has it."""
    configuration = QuicConfiguration(
        is_client=isClient, alpn_protocols=ALPN, verify_mode=ssl.CERT_REQUIRED, cafile=str(directory / "ca.crt")
    )
    configuration.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
    return configuration


class Session(QuicConnectionProtocol):
    """What aioquic's asyncio adapter lacks: back-pressure, and resets both ways."""

    def waiting(self, stream: int) -> int:
        """Bytes of a stream that aioquic holds."""
        found = self._quic._streams.get(stream)  # noqa: SLF001  # nothing public tells
        return len(found.sender._buffer) if found else 0  # noqa: SLF001  # nor this

    def abort(self, stream: int) -> None:
        """Give a stream up in both directions."""
        with suppress(ValueError, *ABORTED):  # one direction may have ended
            self._quic.stop_stream(stream, 0)
        with suppress(ValueError, *ABORTED):
            self._quic.reset_stream(stream, 0)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        """A reset ends a reader."""
        if isinstance(event, StreamReset) and (reader := self._stream_readers.get(event.stream_id)):
            reader.set_exception(ConnectionResetError())
        super().quic_event_received(event)


async def toQuic(session: Session, tcp: Tcp, stream: Tcp) -> None:
    """From TCP to a stream. While it doesn't read, it looks whether the connection was reset."""
    number = stream[1].get_extra_info("stream_id")
    sock = tcp[1].get_extra_info("socket")
    while data := await tcp[0].read(PIECE):
        stream[1].write(data)
        while session.waiting(number) > WINDOW:
            if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "reset")
            await asyncio.sleep(PAUSE)
    stream[1].write_eof()


async def toTcp(stream: Tcp, tcp: Tcp) -> None:
    """From a stream to TCP."""
    while data := await stream[0].read(PIECE):
        tcp[1].write(data)
        await tcp[1].drain()
    tcp[1].write_eof()


async def join(session: Session, tcp: Tcp, stream: Tcp) -> None:
    """A TCP connection and a stream, until both directions have ended or one has failed."""
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(toQuic(session, tcp, stream))
            both.create_task(toTcp(stream, tcp))
    except* ABORTED:
        session.abort(stream[1].get_extra_info("stream_id"))
    finally:
        tcp[1].transport.abort()


async def visited(
    sessions: list[Session], port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A visitor of an entry port."""
    if not sessions:
        writer.transport.abort()
        return
    stream = await sessions[-1].create_stream()
    stream[1].write(port.to_bytes(2, "big"))
    await join(sessions[-1], (reader, writer), stream)


async def listen(directory: Path, host: str, port: int, entries: list[str]) -> None:
    """The public side."""
    sessions: list[Session] = []

    # Any: what aioquic gives to the protocols that it makes, passed on as it is
    def accepted(*arguments: Any, **named: Any) -> Session:
        sessions.append(Session(*arguments, **named))
        return sessions[-1]

    await serve(host, port, configuration=configured(directory, "listener", False), create_protocol=accepted)
    for each in entries:
        entry, target = map(int, each.split(":"))
        await asyncio.start_server(partial(visited, sessions, target), "127.0.0.1", entry)
    await asyncio.Event().wait()


async def dial(directory: Path, host: str, port: int) -> None:
    """The closed side."""
    tasks: set[asyncio.Task[None]] = set()

    async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = int.from_bytes(await reader.readexactly(2), "big")
        await join(session, await asyncio.open_connection("127.0.0.1", target), (reader, writer))

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(opened(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    settings = configured(directory, "connector", True)
    async with connect(host, port, configuration=settings, create_protocol=Session, stream_handler=handle) as connected:
        session = cast(Session, connected)
        await session.wait_closed()


def main() -> None:
    """Run one end until killed."""
    role, directory, host, port = sys.argv[1:5]
    if role == "listen":
        asyncio.run(listen(Path(directory), host, int(port), sys.argv[5:]))
    else:
        asyncio.run(dial(Path(directory), host, int(port)))


if __name__ == "__main__":
    main()
