"""A SCEP server's verify call, with one uid for every certificate: ``python -m benchmarks.verifier PORT UID``."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Verified(BaseHTTPRequestHandler):
    """One call."""

    def do_GET(self) -> None:
        """Whoever it is, it is that uid."""
        answer = json.dumps({"uid": sys.argv[2]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Verified).serve_forever()
