"""What is measured: one entry for each tunnel, in the order of the report's columns. A new carrier is one more line."""

from functools import partial

from benchmarks import others, tunnels
from benchmarks.stage import Kind

DIRECT = Kind("direct", "direct TCP", tunnels.direct)
SSH = Kind("ssh", "ssh -R", tunnels.ssh, ("sshd", "ssh"))
SOCKETWARP = Kind("socketwarp", "socketwarp", tunnels.socketwarp, udp=True)
AIOQUIC = Kind("aioquic", "plain aioquic", others.plainAioquic, udp=True, networks=("lossy",))
TUNNELS = (
    DIRECT,
    SSH,
    SOCKETWARP,
    AIOQUIC,
    Kind("socket-warp", "socket-warp", others.socketWarp, ("sw_listener", "sw_connector"), udp=True),
    Kind("frp", "frp (TLS)", others.frp, ("frps", "frpc")),
    Kind("frp-quic", "frp (QUIC)", partial(others.frp, protocol="quic"), ("frps", "frpc"), udp=True),
    Kind("rathole", "rathole (Noise)", others.rathole, ("rathole",)),
    Kind("chisel", "chisel", others.chisel, ("chisel",)),
)
