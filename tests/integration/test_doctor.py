"""`socketwarp doctor` at a listener that runs, and at ports of this host."""

import json
import socket

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.cli.doctor import checkFreePort
from tests.certs import Authority, pem, writeFile

from .processes import BIN, TunnelCase, freePort


class ListenersCertificate(TunnelCase):
    """What the connector would make of it; the listener has been asked and goes on."""

    def doctor(self, name: str, status: int = 0) -> str:
        self.settings["server_name"] = name
        (self.directory / "settings.json").write_text(json.dumps(self.settings))
        process = self.run_("doctor", str(BIN / "socketwarp"), "doctor", "connector", "--config", "settings.json")
        self.assertEqual(status, process.wait(), process.lines)
        return "".join(process.lines)

    def test_theRightListenerAWrongNameAndAnotherCa(self) -> None:
        self.authority.server("localhost").writePair(str(self.directory), "server")
        self.startListener()
        self.assertIn("has a good certificate for localhost", self.doctor("localhost"))
        self.assertNotIn("refused", "".join(self.listener.lines))
        self.assertIn("is not a certificate for the server name 127.0.0.1", self.doctor("127.0.0.1", status=77))
        self.settings["ca_cert_path"] = writeFile(str(self.directory), "another.crt", pem(Authority("Another").cert))
        self.assertIn("we would refuse the listener", self.doctor("localhost", status=77))

    def test_eachCarrierIsTried(self) -> None:
        """A closed port of one is no problem while the other is open; a refusal is."""
        self.startListener()
        output = self.doctor("localhost")
        self.assertIn("a QUIC server answers", output)
        self.assertIn("lets us in by TLS at localhost, TCP port", output)
        self.settings["tls_port"] = freePort()
        self.assertIn("warning  no listener lets us in by TLS", self.doctor("localhost"))
        self.settings |= {"tls_port": self.settings["service_port"], "service_port": freePort()}
        self.assertIn("-> the session goes by TLS", self.doctor("localhost"))
        Authority("Another").issue("uid-1").writePair(str(self.directory), "client")
        self.assertIn("isn't signed", self.doctor("localhost", status=77))
        self.assertEnds(self.listener)


class FreePorts(SynchronousTestCase):
    """Ports as the system has them."""

    def test_whatAClosedConnectionLeavesIsInNobodysWay(self) -> None:
        """A port whose server has closed a connection (TIME_WAIT), and one that has a server."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            self.assertEqual("warning", checkFreePort("TCP", "127.0.0.1", port, "APIS_PORT").level)
            with socket.create_connection(server.getsockname()) as client:
                server.accept()[0].close()
                self.assertEqual(b"", client.recv(1))
        self.assertEqual("fine", checkFreePort("TCP", "127.0.0.1", port, "APIS_PORT").level)
