"""
QUIC under Twisted: an engine (aioquic's handshake, our own 1-RTT data path), sessions, streams, sockets.

The only package that imports aioquic, and `engine` is the only module that touches its private names. May import
`interfaces` and `errors`; `listener.service` and `connector.service` are the only modules that import this package.
"""
