"""Who isn't let in: refused in the handshake or by the verifier, with the reason in both logs."""

import asyncio
import ssl

from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import AlertDescription

from tests.certs import Authority, Issued, pem, writeFile

from .processes import OverTls, ScepCase, TunnelCase, freePort


class CertificateTests(TunnelCase):
    """
    TLS decides.

    :cvar told: what a listener hears from a connector that its certificate isn't for.
    """

    told = "not a certificate for the server name localhost"

    def present(self, issued: Issued, name: str) -> None:
        """Let an end have this certificate; what it trusts stays as it is."""
        roots = (self.directory / "ca.crt").read_bytes()
        issued.write(str(self.directory), name)
        writeFile(str(self.directory), "ca.crt", roots)

    def test_aConnectorOfAnotherCaIsRefusedAndBothSayWhy(self) -> None:
        self.present(Authority("Somebody else").issue("uid-1"), "client")
        self.startListener()
        self.startConnector()
        self.connector.waitFor("the listener refused us", "isn't signed by a CA that is trusted there", "next attempt")
        self.listener.waitFor("refused: TLS refused it", "127.0.0.1")
        self.assertEqual([], self.listener.stderr)
        self.assertIn("No QUIC connection", self.call("POST", "/open", self.wish())[1])

    def wish(self) -> dict[str, object]:
        return {"uid": "uid-1", "port": freePort(), "connect_address": "127.0.0.1", "connect_port": 1}

    def test_aRevokedConnectorIsRefusedAndBothSayWhy(self) -> None:
        revoked = self.authority.issue("uid-1")
        self.present(revoked, "client")
        writeFile(str(self.directory), "revoked.crl", pem(self.authority.crl(revoked)))
        self.environment["SWL_CRL_PATHS"] = "revoked.crl"
        self.startListener()
        self.startConnector()
        self.connector.waitFor("our certificate has been revoked", "next attempt")
        self.listener.waitFor("refused: TLS refused it", "revoked")

    def test_aListenerWithAnotherNameIsRefusedAndBothSayWhy(self) -> None:
        self.present(self.authority.server("elsewhere.example"), "server")
        self.startListener()
        self.startConnector()
        self.connector.waitFor(
            "we refused the listener", "not a certificate for the server name localhost", "next attempt"
        )
        self.listener.waitFor("refused: it ended the handshake", self.told)


class CertificateOverTlsTests(OverTls, CertificateTests):
    """The same over TLS, where OpenSSL sends no reasons, and a poor alert."""

    told = "its log says why"


class AnonymousTests(TunnelCase):
    """A QUIC client that isn't ours."""

    def test_whoShowsNoCertificateIsRefused(self) -> None:
        self.startListener()

        async def handshake() -> None:
            configuration = QuicConfiguration(alpn_protocols=["hq-29"], verify_mode=ssl.CERT_NONE)
            port = self.environment["SWL_PORT"]
            async with connect("127.0.0.1", int(port), configuration=configuration) as client:
                # TLS 1.3 has told the client that all is well before the server looks at what the client shows.
                await client.wait_closed()
                closed = client._quic._close_event
                assert closed is not None
                self.assertEqual(0x100 + AlertDescription.certificate_required, closed.error_code)

        asyncio.run(handshake())
        self.listener.waitFor("refused: TLS refused it", "certificate")


class VerifierTests(ScepCase):
    """The SCEP server decides, or can't."""

    def test_whomTheServerKnowsIsLetIn(self) -> None:
        self.startBoth()
        server = self.listen()
        self.assertEcho(server, self.entrance(server))

    def test_whomTheServerRefusesIsToldSoAndBothSayWhy(self) -> None:
        self.authority.issue("stranger").write(str(self.directory), "client")
        self.startListener()
        self.startConnector()
        self.connector.waitFor("refuse", "User Not Found", "next attempt")
        self.listener.waitFor("refused:", "User Not Found")

    def test_whileTheServerIsDownNobodyIsLetInAndAfterwardsTheConnectorIs(self) -> None:
        self.tell("/fake/verify", behaviour="database")
        self.startListener()
        self.startConnector()
        self.connector.waitFor("Failed to get RCs", "next attempt")
        self.listener.waitFor("refused:", "Failed to get RCs")
        self.tell("/fake/verify", behaviour="proper")
        self.listener.waitFor("connector uid-1 connected")

    def test_withoutAServerNobodyIsLetInAndBothSayWhy(self) -> None:
        self.scep.end()
        self.startListener()
        self.startConnector()
        self.connector.waitFor("no connection", "next attempt")
        self.listener.waitFor("refused:", "no connection")


class VerifierOverTlsTests(OverTls, VerifierTests):
    """The same over TLS."""
