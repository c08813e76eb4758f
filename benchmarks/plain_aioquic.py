"""
The least tunnel on plain aioquic and asyncio, to compare with: Reno, one datagram for each call, aioquic's own limits.

| ``python -m benchmarks.plain_aioquic listen DIRECTORY HOST UDP_PORT ENTRY:TARGET …``
| ``python -m benchmarks.plain_aioquic dial DIRECTORY HOST UDP_PORT``

The directory holds certificates and keys as `tunnels.Kit` makes them. A stream begins with the target's port (2 bytes).
"""

import asyncio
import ssl
import sys
from functools import partial
from pathlib import Path

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

#: Bytes of one stream that wait to be acknowledged, before its TCP side isn't read any more.
WINDOW = 1024 * 1024
#: Seconds between two looks at it.
PAUSE = 0.002
PIECE = 64 * 1024
ALPN = ["plain"]


def configured(directory: Path, name: str, isClient: bool) -> QuicConfiguration:
    """Mutual TLS with the kit's certificates; the rest as aioquic has it."""
    configuration = QuicConfiguration(
        is_client=isClient, alpn_protocols=ALPN, verify_mode=ssl.CERT_REQUIRED, cafile=str(directory / "ca.crt")
    )
    configuration.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
    return configuration


def waiting(quic: QuicConnectionProtocol, stream: int) -> int:
    """Bytes of a stream that aioquic holds. Its asyncio adapter has no back-pressure, so its insides must tell."""
    found = quic._quic._streams.get(stream)  # noqa: SLF001
    return len(found.sender._buffer) if found else 0  # noqa: SLF001


async def toQuic(quic: QuicConnectionProtocol, tcp: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
    """From TCP to a stream, until the end of either."""
    number = stream.get_extra_info("stream_id")
    while data := await tcp.read(PIECE):
        stream.write(data)
        while waiting(quic, number) > WINDOW:
            await asyncio.sleep(PAUSE)
    stream.write_eof()


async def toTcp(stream: asyncio.StreamReader, tcp: asyncio.StreamWriter) -> None:
    """From a stream to TCP, until the end of either."""
    while data := await stream.read(PIECE):
        tcp.write(data)
        await tcp.drain()
    tcp.write_eof()


async def join(
    quic: QuicConnectionProtocol,
    tcp: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    stream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """A TCP connection and a stream, until both directions have ended or one has failed."""
    try:
        await asyncio.gather(toQuic(quic, tcp[0], stream[1]), toTcp(stream[0], tcp[1]))
    except OSError:
        pass  # a reset: what is left of both ends here
    finally:
        stream[1].close()
        tcp[1].transport.abort()


async def visited(
    sessions: list[QuicConnectionProtocol], port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A visitor of an entry port."""
    if not sessions:
        writer.transport.abort()
        return
    stream = await sessions[-1].create_stream()
    stream[1].write(port.to_bytes(2, "big"))
    await join(sessions[-1], (reader, writer), stream)


class Session(QuicConnectionProtocol):
    """The listener's side of the latest connector."""

    sessions: list[QuicConnectionProtocol]

    def __init__(self, sessions: list[QuicConnectionProtocol], *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # passed on as aioquic gives them
        sessions.append(self)


async def listen(directory: Path, host: str, port: int, entries: list[str]) -> None:
    """The public side."""
    sessions: list[QuicConnectionProtocol] = []
    await serve(
        host, port, configuration=configured(directory, "listener", False), create_protocol=partial(Session, sessions)
    )
    for each in entries:
        entry, target = map(int, each.split(":"))
        await asyncio.start_server(partial(visited, sessions, target), "127.0.0.1", entry)
    await asyncio.Event().wait()


async def dial(directory: Path, host: str, port: int) -> None:
    """The closed side."""
    tasks: set[asyncio.Task[None]] = set()

    async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = int.from_bytes(await reader.readexactly(2), "big")
        await join(quic, await asyncio.open_connection("127.0.0.1", target), (reader, writer))

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(opened(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with connect(
        host, port, configuration=configured(directory, "connector", True), stream_handler=handle
    ) as quic:
        await quic.wait_closed()


def main() -> None:
    """Run one end until killed."""
    role, directory, host, port = sys.argv[1:5]
    if role == "listen":
        asyncio.run(listen(Path(directory), host, int(port), sys.argv[5:]))
    else:
        asyncio.run(dial(Path(directory), host, int(port)))


if __name__ == "__main__":
    main()
