"""
The public side: connectors are admitted, visitors are accepted, an API says which ports are open.

What lives here: `service` (composes the others, the only module that knows ``quic``), `connectors` (sessions, from
hello to end: `greeting` talks to them, `roster` decides who serves which uid, `waiting` has visitors whose connector is
away), `ports` (the wishes, kept and reconciled), `entries` (one port: socket, lease, who may come in), `visitors` (one
visitor), `wishes` (what may be wished), `store` (wishes on the disk), `descriptors` (sockets that pause before the
process runs out of file descriptors), `policy` (the operator's rules), `tokens` (of the API's callers; `tomlfiles`
reads both), `api` (the HTTP calls, the only room that imports klein), `events` (what happened, once, for every reader;
`throttle` says how often), `audit` (who changed what, in a file), `metrics`, `explain` (would this visitor get through)
and `probe` (a stream to a target, to see how far it gets). May import ``identity``, ``bridge``, ``control``, ``wire``,
``settings``, ``interfaces`` and ``errors``; never ``connector``.
"""
