"""Tests of `socketwarp.tcp`: sockets on loopback, polled by the test; nothing waits."""
