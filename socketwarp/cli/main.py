"""The `socketwarp` command: the list of its commands, and how their failures end."""

from errno import EPIPE

import click

from ..errors import EX_FAILED, SocketwarpError
from ._http import Failed
from ._options import serverOptions
from ._show import clean
from .asking import explain, probe
from .config import config
from .connectors import connections, connectors
from .doctor import doctor
from .enrol import enrol
from .gencert import gencert
from .ports import closePort, listPorts, openPort
from .status import status
from .token import token
from .watch import watch

#: Commands that call a listener's API.
CALLS = (openPort, closePort, listPorts, status, connectors, connections, watch, probe, explain)
OFFLINE = (token, doctor, gencert, enrol, config)


class _Commands(click.Group):
    """Prints one of our errors as its one line, and exits with its status."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (SocketwarpError, Failed) as e:
            click.echo(f"socketwarp: {clean(str(e))}", err=True)
            ctx.exit(e.exitCode)
        except OSError as e:
            if e.errno == EPIPE:
                raise  # nobody reads on, which click knows to end with
            click.echo(f"socketwarp: the output can't be written: {e.strerror}", err=True)
            ctx.exit(EX_FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are needed."""
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="socketwarp")
@serverOptions
@click.pass_context
def commands(context: click.Context, /, **server: str | None) -> None:
    """
    Reach TCP services inside closed networks.

    Most commands call a listener's API; each takes the options below behind its name, too. token, doctor, gencert,
    enrol and config work without a listener.

    \b
    Exit status:
       0  done
       1  failed
       2  wrong usage
      69  unavailable: no listener, no connector, or not in time
      77  denied: by TLS, a token's role, a policy
      78  configuration: a file or a setting can't be used
    \b
    Completion, in ~/.bashrc, in ~/.zshrc, and in ~/.config/fish/config.fish:
      eval "$(_SOCKETWARP_COMPLETE=bash_source socketwarp)"
      eval "$(_SOCKETWARP_COMPLETE=zsh_source socketwarp)"
      _SOCKETWARP_COMPLETE=fish_source socketwarp | source
    """
    given = {name: value for name, value in server.items() if value is not None}
    context.default_map = {str(command.name): given for command in CALLS}


for _command in (*CALLS, *OFFLINE):
    commands.add_command(_command)


def main() -> None:
    """The console script."""
    commands(prog_name="socketwarp")
