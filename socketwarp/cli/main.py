"""The `socketwarp` command: the list of its commands, and how their failures end."""

import click

from ..errors import SocketwarpError
from .doctor import doctor
from .enrol import enrol
from .gencert import gencert


class _Commands(click.Group):
    """Prints one of our errors as its one line, and exits with its status."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SocketwarpError as e:
            click.echo(f"socketwarp: {e}", err=True)
            ctx.exit(e.exitCode)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="socketwarp")
def commands() -> None:
    """Reach TCP services inside closed networks."""


for _command in (gencert, enrol, doctor):
    commands.add_command(_command)


def main() -> None:
    """The console script."""
    commands(prog_name="socketwarp")
