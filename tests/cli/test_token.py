import os
import stat
from hashlib import sha256

from socketwarp.rules.tokens import parseTokens

from .rig import CliCase


class Token(CliCase):
    def test_the_lines_are_what_the_listener_reads(self) -> None:
        made = self.run_("token", "ci ü", "--role", "read", "--port", "18000-18099", "--port", "22", "--uid", "lab-*")
        (token,) = parseTokens(made.stdout)
        self.assertEqual(("ci ü", "read", ("lab-*",)), (token.name, token.role, token.uids))
        self.assertTrue(18050 in token.ports[0] and 22 in token.ports[1])
        secret = made.stderr.split()[-1]
        self.assertEqual(sha256(secret.encode()).hexdigest(), token.sha256)
        self.assertNotIn(secret, made.stdout)

    def test_lines_of_several_make_one_file(self) -> None:
        text = self.run_("token", "a").stdout + self.run_("token", "b").stdout
        one, other = parseTokens(text)
        self.assertNotEqual(one.sha256, other.sha256)

    def test_a_file_of_its_owner_holds_the_token(self) -> None:
        path = self.mktemp()
        made = self.run_("token", "a", "--out", path)
        with open(path) as file:
            secret = file.read().strip()
        self.assertEqual(sha256(secret.encode()).hexdigest(), parseTokens(made.stdout)[0].sha256)
        self.assertNotIn(secret, made.output)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        failed = self.run_("token", "a", "--out", path, status=78)
        self.assertIn("exists already: name another file", failed.stderr)
        self.assertNotIn("--force", failed.stderr)  # which there isn't: a token that is in use is worth a thought

    def test_json(self) -> None:
        made = self.json("token", "a")
        self.assertEqual(sha256(made["token"].encode()).hexdigest(), parseTokens(made["toml"])[0].sha256)
        self.assertNotIn("token", self.json("token", "a", "--out", self.mktemp()))

    def test_wrong_usage(self) -> None:
        for arguments in (["a\nb"], [""], ["a", "--port", "x"], ["a", "--port", "1,2"], ["a", "--uid", ""]):
            self.run_("token", *arguments, status=2)
