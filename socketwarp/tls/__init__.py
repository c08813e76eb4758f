"""
TLS 1.3 over TCP under Twisted: the carrier for networks that let no UDP through, and the fast lane on clean ones.

A session is one control lane and a pool of data lanes; a **lane** is a TLS connection of its own, and carries one
visitor's stream at a time. pyOpenSSL does the handshakes and the records, `tcp` has the sockets. May import `tcp`,
`wire`, `interfaces` and `errors`; `listener.service` and `connector.service` are the only modules that import this
package.
"""
