"""
Who is at the other end: certificates loaded, checked, watched, made and fetched, and the verifiers that name a uid.

Checks are `chains`, files `pem` and `certificates`, hot reload `watch`, texts `describe`; the `IVerifier`s are `scep`
(over HTTP) and `local` (without a server), both with `names`; `authority` makes certificates, `enrol` and `cms` get
them from a SCEP server. Imports only `interfaces` and `errors` of ours, never `bridge`, `quic` or the rooms above.
"""
