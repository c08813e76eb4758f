"""Tunnels that people use beside ours, each as its documentation sets it up with encryption; measured if on PATH."""

import re
import socket
import sys

from benchmarks.loads import Address
from benchmarks.networks import LOOPBACK, ROOT
from benchmarks.processes import Failed, freePort, run
from benchmarks.stage import UID, Stage
from benchmarks.tunnels import socketwarp


def plainAioquic(stage: Stage) -> dict[str, Address]:
    """The least tunnel on plain aioquic."""
    port, entries = freePort(socket.SOCK_DGRAM), stage.entries()
    pairs = [f"{entry}:{stage.targets[purpose]}" for purpose, (_, entry) in entries.items()]
    program = [sys.executable, "-m", "benchmarks.plain_aioquic"]
    kit, path = str(stage.kit.directory), {"PYTHONPATH": str(ROOT)}
    stage.public("listener", *program, "listen", kit, stage.site.publicHost, str(port), *pairs, **path)
    stage.closed("connector", *program, "dial", kit, stage.site.publicHost, str(port), **path)
    return entries


def socketWarp(stage: Stage) -> dict[str, Address]:
    """The original; a SCEP server's verify call is played by ``verifier``, which isn't measured."""
    port = freePort()
    program = [sys.executable, "-m", "benchmarks.verifier", str(port), UID]
    stage.public("verifier", *program, PYTHONPATH=str(ROOT))
    stage.helpers.append(stage.processes.pop())
    return socketwarp(
        stage, ("sw_listener",), ("sw_connector",), SWL_SCEP_URL=f"http://{LOOPBACK}:{port}/api/cert/verify"
    )


def frp(stage: Stage, protocol: str = "tcp") -> dict[str, Address]:
    """frps and frpc; TLS is their default."""
    port, quic, entries = freePort(), freePort(socket.SOCK_DGRAM), stage.entries()
    server = stage.write(
        "frps.toml",
        f'bindAddr = "{stage.site.publicHost}"\nbindPort = {port}\nquicBindPort = {quic}\n'
        f'proxyBindAddr = "{LOOPBACK}"\nlog.level = "warn"\n',
    )
    dialled = quic if protocol == "quic" else port
    client = f'serverAddr = "{stage.site.publicHost}"\nserverPort = {dialled}\ntransport.protocol = "{protocol}"\n'
    client += 'loginFailExit = false\nlog.level = "warn"\n'
    for purpose, (_, entry) in entries.items():
        client += f'[[proxies]]\nname = "{purpose}"\ntype = "tcp"\nlocalIP = "{LOOPBACK}"\n'
        client += f"localPort = {stage.targets[purpose]}\nremotePort = {entry}\n"
    stage.public("frps", "frps", "-c", server)
    stage.closed("frpc", "frpc", "-c", stage.write("frpc.toml", client))
    return entries


def rathole(stage: Stage) -> dict[str, Address]:
    """rathole over Noise, the server known by its key."""
    keys = re.findall(r"(?:Private|Public) Key:\s*(\S+)", run(["rathole", "--genkey"]))
    if len(keys) != 2:
        raise Failed("rathole --genkey printed no pair of keys")
    port, entries = freePort(), stage.entries()
    server = f'[server]\nbind_addr = "{stage.site.publicHost}:{port}"\ndefault_token = "bench"\n'
    server += f'[server.transport]\ntype = "noise"\n[server.transport.noise]\nlocal_private_key = "{keys[0]}"\n'
    client = f'[client]\nremote_addr = "{stage.site.publicHost}:{port}"\ndefault_token = "bench"\n'
    client += f'[client.transport]\ntype = "noise"\n[client.transport.noise]\nremote_public_key = "{keys[1]}"\n'
    for purpose, (host, entry) in entries.items():
        server += f'[server.services.{purpose}]\nbind_addr = "{host}:{entry}"\n'
        client += f'[client.services.{purpose}]\nlocal_addr = "{LOOPBACK}:{stage.targets[purpose]}"\n'
    stage.public("server", "rathole", "--server", stage.write("server.toml", server))
    stage.closed("client", "rathole", "--client", stage.write("client.toml", client))
    return entries


def chisel(stage: Stage) -> dict[str, Address]:
    """chisel: SSH within a WebSocket."""
    port, entries = freePort(), stage.entries()
    stage.public("server", "chisel", "server", "--reverse", "--host", stage.site.publicHost, "--port", str(port))
    remotes = [f"R:{host}:{entry}:{LOOPBACK}:{stage.targets[purpose]}" for purpose, (host, entry) in entries.items()]
    stage.closed("client", "chisel", "client", f"http://{stage.site.publicHost}:{port}", *remotes)
    return entries
