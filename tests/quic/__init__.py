"""Tests of `socketwarp.quic`: in memory, with time as a number; only `test_datagrams` has sockets."""
