from contextlib import redirect_stdout
from io import StringIO
from unittest import mock

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.cli.main import commands, main
from socketwarp.errors import AddressUnavailable, ConfigurationError, SocketwarpError


class Failures(SynchronousTestCase):
    def run_(self, error: Exception) -> tuple[int, str]:
        def fail() -> None:
            raise error

        with mock.patch.dict(commands.commands, {"fail": click.Command("fail", callback=fail)}):
            result = CliRunner().invoke(commands, ["fail"])
        return result.exit_code, result.output

    def test_one_of_ours_is_one_line_and_its_exit_status(self) -> None:
        self.assertEqual(self.run_(ConfigurationError("X: wrong")), (78, "socketwarp: X: wrong\n"))
        self.assertEqual(self.run_(AddressUnavailable("taken")), (69, "socketwarp: taken\n"))
        self.assertEqual(self.run_(SocketwarpError("broken")), (1, "socketwarp: broken\n"))

    def test_an_unknown_command_is_a_usage_error(self) -> None:
        self.assertEqual(CliRunner().invoke(commands, ["nonsense"]).exit_code, 2)

    def test_every_command_has_help(self) -> None:
        for name in commands.commands:
            result = CliRunner().invoke(commands, [name, "--help"])
            self.assertEqual(result.exit_code, 0)
            self.assertIn("Usage: ", result.output)

    def test_the_console_script_runs_the_commands(self) -> None:
        with mock.patch("sys.argv", ["socketwarp", "--help"]), redirect_stdout(StringIO()) as output:
            self.assertEqual(self.assertRaises(SystemExit, main).code, 0)
        self.assertIn("gencert", output.getvalue())
