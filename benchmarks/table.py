"""What is measured: one entry for each tunnel, in the order of the report's columns."""

from functools import partial

from benchmarks import others, tunnels
from benchmarks.stage import Kind

DIRECT = Kind("direct", "direct TCP", tunnels.direct)
SSH = Kind("ssh", "ssh -R", tunnels.ssh, ("sshd", "ssh"))
#: What carries socketwarp (the connector's ``SWC_CARRIER``), by the tunnel's name.
CARRIERS = {"socketwarp": "quic", "socketwarp-tls": "tls"}
TUNNELS = (
    DIRECT,
    SSH,
    Kind("socketwarp", "socketwarp", partial(tunnels.socketwarp, SWC_CARRIER=CARRIERS["socketwarp"])),
    Kind("socketwarp-tls", "socketwarp (TLS)", partial(tunnels.socketwarp, SWC_CARRIER=CARRIERS["socketwarp-tls"])),
    Kind("aioquic", "plain aioquic", others.plainAioquic, networks=("lossy",)),
    Kind("socket-warp", "socket-warp", others.socketWarp, ("sw_listener", "sw_connector")),
    Kind("frp", "frp (TLS)", others.frp, ("frps", "frpc")),
    Kind("frp-quic", "frp (QUIC)", partial(others.frp, protocol="quic"), ("frps", "frpc")),
    Kind("rathole", "rathole (Noise)", others.rathole, ("rathole",)),
    Kind("chisel", "chisel", others.chisel, ("chisel",)),
)
