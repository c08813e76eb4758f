"""
The public side: connectors are admitted, visitors are accepted, an API says which ports are open.

What lives here: `service` (composes the others, the only module that knows ``quic``), `connectors` (uid to session),
`ports` and `visitors` (open TCP ports and who comes to them), `descriptors` (sockets that pause before the process runs
out of file descriptors), `store` (open ports that survive a restart), `api` (the HTTP calls, the only module that
imports klein) and `events` (what happened, once, for every reader). May import ``identity``, ``bridge``, ``wire``,
``settings``, ``interfaces`` and ``errors``; never ``connector``.
"""
