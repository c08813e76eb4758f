"""
socketwarp carries TCP connections backwards through one mutually authenticated QUIC connection.

What lives here, from the bottom up: `errors` and `interfaces` (what the rooms promise each other), `settings`, `wire`
(the bytes we define), `bridge` (TCP to stream), `control` (what the ends say to each other), `memory` (the process's
budget), the packages `quic`, `tcp` and `identity`, the two ends `listener` and `connector`, the command line `cli`, and
the taps through which twistd starts an end. A module imports only from rooms below its own; docs/architecture.rst names
them, and import-linter checks it.
"""
