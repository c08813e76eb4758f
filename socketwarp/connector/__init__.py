"""
The closed side: stays connected to a listener and dials the targets that its visitors ask for.

`link` keeps one listener's session alive (`lifecycle` is its state machine; `attempt`, `race`, `conversation`,
`backoff` and `refusals` serve it), `carriers` says what carries it, which is `remembered`, `network` says when to
hurry, `streams` turns each incoming stream into a connection to a target, `policy` says which targets may be dialled,
`targets` and `names` dial them, and `service` puts it all together. May import `identity`, `bridge`, `control`,
`wire`, `settings`, `interfaces` and `errors`; only `service` imports the carriers, `quic` and `tls`, and `tcp`.
"""
