"""
The bytes that socketwarp defines: what comes before a visitor's bytes on a stream, and the control stream's messages.

Parsers and formatters only: nothing here opens, waits or logs. The public names are in the modules: `dialect` (what to
speak, by ALPN), `preamble` (the records, and the original's header), `messages` (socketwarp/1's control messages),
`proxy` (PROXY protocol headers for targets). docs/protocol.rst shows the same bytes for people. May import
`interfaces` and `errors`.
"""
