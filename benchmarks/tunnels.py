"""
How direct connections, ``ssh -R`` and socketwarp are started; ``others`` has the rest, ``table`` lists them all.

A start function gets a stage, starts processes on both sides, and says by which address visitors reach each target. It
need not wait: visitors knock until the first byte comes back.
"""

import http.client
import json
import shutil
import socket
import sys
from functools import partial
from pathlib import Path

from benchmarks.loads import Address
from benchmarks.networks import LOOPBACK
from benchmarks.processes import Failed, freePort, until
from benchmarks.stage import UID, Stage


def direct(stage: Stage) -> dict[str, Address]:
    """No tunnel."""
    return {purpose: (stage.site.closedHost, port) for purpose, port in stage.targets.items()}


def ssh(stage: Stage) -> dict[str, Address]:
    """``ssh -R`` with its defaults, to an sshd of its own."""
    Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd doesn't start without it; empty, and gone at the next boot
    port, entries = freePort(), stage.entries()
    configuration = stage.write(
        "sshd_config",
        f"Port {port}\nHostKey {stage.kit.path('host')}\nAuthorizedKeysFile {stage.kit.path('user.pub')}\n"
        "PidFile none\nUsePAM no\nStrictModes no\nUseDNS no\nPasswordAuthentication no\n",
    )
    stage.public("sshd", shutil.which("sshd") or "sshd", "-D", "-e", "-f", configuration)
    until(lambda: _listens(stage, stage.site.publicHost, port), "sshd")
    options = "-F none -N -T -o ExitOnForwardFailure=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    forwards = [
        word
        for purpose, (host, entry) in entries.items()
        for word in ("-R", f"{host}:{entry}:{LOOPBACK}:{stage.targets[purpose]}")
    ]
    stage.closed(
        "ssh", "ssh", *options.split(), "-i", stage.kit.path("user"), "-p", str(port), *forwards, stage.site.publicHost
    )
    return entries


def _listens(stage: Stage, host: str, port: int) -> bool | None:
    """Whether somebody accepts TCP connections there; else None."""
    stage.check()
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return None


def _open(stage: Stage, api: int, wish: dict[str, object]) -> bool | None:
    """Ask the listener for an entry port; None when the connector, or the listener itself, isn't there yet."""
    stage.check()
    connection = http.client.HTTPConnection(LOOPBACK, api, timeout=5)
    try:
        connection.request("POST", "/open", json.dumps(wish), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read().decode()
    except OSError:
        return None
    finally:
        connection.close()
    if answer.status == 200:
        return True
    if "No QUIC connection" in said:
        return None
    raise Failed(f"/open: {answer.status} {said}")


def socketwarp(
    stage: Stage,
    listener: tuple[str, ...] = (str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "swlistener"),
    connector: tuple[str, ...] = (str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "swconnector"),
    **environment: str,
) -> dict[str, Address]:
    """Listener and connector by their defaults, but for these variables."""
    port, api, entries = freePort(), freePort(), stage.entries()
    settings = {
        "client_cert_path": stage.kit.path("connector.crt"),
        "client_key_path": stage.kit.path("connector.key"),
        "ca_cert_path": stage.kit.path("ca.crt"),
        "server_name": stage.site.publicHost,
        "service_port": port,
    }
    stage.write("settings.json", settings)
    variables = {
        "SWL_CERT_PATH": stage.kit.path("listener.crt"),
        "SWL_KEY_PATH": stage.kit.path("listener.key"),
        "SWL_CA_PATH": stage.kit.path("ca.crt"),
        "SWL_VERIFIER": "local",
        "SWL_PORT": str(port),
        "SWL_STATE_DIR": str(stage.directory / "state"),
        "APIS_ADDRS": LOOPBACK,
        "APIS_PORT": str(api),
        **environment,
    }
    stage.public("listener", *listener, **variables)
    until(lambda: _listens(stage, LOOPBACK, api), "the listener's API")
    stage.closed("connector", *connector, **{"SWC_STATE_DIR": variables["SWL_STATE_DIR"], **environment})
    for purpose, (_, entry) in entries.items():
        wish = {"uid": UID, "port": entry, "connect_address": LOOPBACK, "connect_port": stage.targets[purpose]}
        until(partial(_open, stage, api, wish), "the connector")
    return entries
