"""Callers of the API whose certificates are revoked."""

from typing import Any, Literal

import attrs
from twisted.web.client import readBody

from socketwarp.settings import ListenerSettings
from tests.certs import DAY, Authority, pem

from .test_api_access import ApiTestCase, Showing


class RevocationTests(ApiTestCase):
    """Mutual TLS with a revocation list."""

    expired: Literal["refuse", "warn"] = "refuse"

    def setUp(self) -> None:
        super().setUp()
        self.revoked = self.authority.issue("revoked", eku=("client",))
        self.write(self.revoked, "revoked")
        self.revoke()

    def revoke(self, authority: Authority | None = None, **dates: Any) -> None:  # Any: timedeltas of Authority.crl
        """Put a list into the file: ours, unless another's is wanted."""
        crl = (authority or self.authority).crl(*([] if authority else [self.revoked]), **dates)
        (self.directory / "list.crl").write_bytes(pem(crl))

    def settings(self, way: str) -> ListenerSettings:
        lists = (self.directory / "list.crl",)
        return attrs.evolve(super().settings(way), apiCrlPaths=lists, crlExpired=self.expired)

    async def ask(self, url: str, name: str) -> int:
        return await self.status(url, "GET", "/v1/ports", None, Showing(name))

    async def test_whoIsRevokedIsRefusedByTlsAndOthersAreNot(self) -> None:
        url, _ = self.listen("mtls")
        self.assertIn("certificate revoked", await self.refusal(url, Showing("revoked")))
        self.assertEqual(200, await self.ask(url, "caller"))

    async def test_anOutdatedListRefusesUnlessItIsToWarn(self) -> None:
        self.revoke(lastUpdate=-2 * DAY, nextUpdate=-DAY)
        url, _ = self.listen("mtls")
        self.assertIn("alert", await self.refusal(url, Showing("caller")))
        self.expired = "warn"
        url, _ = self.listen("mtls")
        self.assertEqual(200, await self.ask(url, "caller"))
        self.assertIn("certificate revoked", await self.refusal(url, Showing("revoked")))

    async def test_theCallersCaNeedsAList(self) -> None:
        self.revoke(Authority("Other CA"))
        url, _ = self.listen("mtls")
        self.assertIn("alert", await self.refusal(url, Showing("caller")))

    async def test_anExchangedCertificateNeedsNone(self) -> None:
        friend = Authority("friend")
        own = friend.issue("friend", key=friend.key, eku=("client",))
        self.write(own, "friend")
        (self.directory / "ca.crt").write_bytes(pem(self.authority.cert) + pem(own.cert))
        url, _ = self.listen("mtls")
        self.assertEqual(200, await self.ask(url, "friend"))
        self.write(friend.issue("friend", key=friend.key, eku=("client",)), "unknown")
        (self.directory / "ca.crt").write_bytes(pem(self.authority.cert) + pem(own.cert))
        self.assertIn("alert", await self.refusal(url, Showing("unknown")))

    async def test_aNewListCountsForConnectionsThatAreThere(self) -> None:
        """They end; and so they don't while nothing changes for callers."""
        (self.directory / "list.crl").write_bytes(pem(self.authority.crl()))
        url, (files,) = self.listen("mtls")
        following = await self.agent(Showing("revoked")).request(b"GET", f"{url}/v1/events".encode())
        over = readBody(following)
        self.write(self.authority.server("localhost"), "api")
        self.assertTrue(files.check())
        self.assertEqual(200, await self.ask(url, "caller"))
        self.assertFalse(over.called)
        self.revoke()
        self.assertTrue(files.check())
        await over
        self.assertIn("certificate revoked", await self.refusal(url, Showing("revoked")))
