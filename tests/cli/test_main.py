from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from socketwarp import errors
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

    def test_every_command_has_help_with_an_example(self) -> None:
        found: list[tuple[list[str], click.Command]] = [([name], each) for name, each in commands.commands.items()]
        lacking = []
        while found:
            path, command = found.pop()
            if isinstance(command, click.Group):
                found += [([*path, name], inner) for name, inner in command.commands.items()]
            result = CliRunner().invoke(commands, [*path, "--help"])
            self.assertEqual(result.exit_code, 0)
            self.assertIn("Usage: ", result.output)
            isGroup = isinstance(command, click.Group) and not command.invoke_without_command
            if not isGroup and f"socketwarp {' '.join(path)}" not in result.output.partition("Example")[2]:
                lacking.append(path)
        self.assertEqual([], lacking)

    def test_every_command_prints_json_when_told_to(self) -> None:
        found: list[tuple[str, click.Command]] = [("", commands)]
        lacking = []
        while found:
            name, command = found.pop()
            if isinstance(command, click.Group):
                found += [(f"{name} {each}", inner) for each, inner in command.commands.items()]
            elif not any("--json" in parameter.opts for parameter in command.params):
                lacking.append(name)
        self.assertEqual([], lacking)

    def test_lists_of_commands_say_whole_sentences(self) -> None:
        for path in ((), ("gencert",), ("config",)):
            shown = CliRunner().invoke(commands, [*path, "--help"]).output
            listed = shown.partition("Commands:\n")[2].splitlines()
            self.assertEqual([], [line for line in listed if not line.endswith((".", "?")) or line.endswith("...")])

    def test_shells_complete_paths(self) -> None:
        """Of each option that names a file, so that the shell looks for it."""
        for option in ("--ca", "--cert", "--key", "--token-file"):
            environment = {"_SOCKETWARP_COMPLETE": "bash_complete", "COMP_WORDS": f"socketwarp list {option} ca"}
            done = CliRunner().invoke(commands, env=environment | {"COMP_CWORD": "3"}, prog_name="socketwarp")
            self.assertEqual("file,ca\n", done.output)

    def test_help_and_readme_name_the_exit_statuses(self) -> None:
        shown = CliRunner().invoke(commands, ["--help"]).output
        readme = (Path(__file__).parent.parent.parent / "README.rst").read_text()
        for status in {kind.exitCode for kind in vars(errors).values() if hasattr(kind, "exitCode")}:
            self.assertRegex(shown, rf"(?m)^ +{status}  \w")
            self.assertRegex(readme, rf"(?m)^{status} +\w")

    def test_the_console_script_runs_the_commands(self) -> None:
        with mock.patch("sys.argv", ["socketwarp", "--help"]), redirect_stdout(StringIO()) as output:
            self.assertEqual(self.assertRaises(SystemExit, main).code, 0)
        self.assertIn("gencert", output.getvalue())
