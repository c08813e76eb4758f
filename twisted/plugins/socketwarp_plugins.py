"""Tells twistd and twist of the two ends; imports neither."""

from twisted.application.service import ServiceMaker

swlistener = ServiceMaker(  # type: ignore[no-untyped-call]  # Twisted has no types for it
    "socketwarp listener",
    "socketwarp.listener_tap",
    "the public side: accepts connectors over QUIC, and visitors on the TCP ports that the API opens",
    "swlistener",
)
swconnector = ServiceMaker(  # type: ignore[no-untyped-call]  # Twisted has no types for it
    "socketwarp connector",
    "socketwarp.connector_tap",
    "the closed side: stays connected to a listener and dials its visitors' targets",
    "swconnector",
)
