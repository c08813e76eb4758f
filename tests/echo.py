"""A target that says what it hears: ``python -m tests.echo`` prints its port, and runs until it is ended."""

import asyncio


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _main() -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, backlog=4096)
    print("echo at", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
