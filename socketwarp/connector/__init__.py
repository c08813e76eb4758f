"""
The closed side: stays connected to a listener and dials the targets that its visitors ask for.

`link` keeps one listener's session alive (a state machine; `backoff`, `attempt` and `refusals` serve it), `streams`
turns each incoming stream into a connection to a target, `policy` says which targets may be dialled, `targets` and
`names` dial them, and `service` puts it all together. May import `identity`, `bridge`, `wire`, `settings`, `interfaces`
and `errors`; only `service` imports `quic`.
"""
