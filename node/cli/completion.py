"""`mesh completion`: what a shell needs to complete commands, options and values."""

from __future__ import annotations

import os
import sys
from pathlib import PurePath
from typing import Final

import click

from node.cli.printing import say

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_MESH_COMPLETE"
_INSTALL: Final = {
    "bash": 'put this into ~/.bashrc:  eval "$(mesh completion bash)"',
    "zsh": 'put this into ~/.zshrc, below compinit:  eval "$(mesh completion zsh)"',
    "fish": "mesh completion fish > ~/.config/fish/completions/mesh.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print what SHELL (bash, zsh, fish) needs to complete commands, options and values.

    \b
      bash   eval "$(mesh completion bash)"      in ~/.bashrc
      zsh    eval "$(mesh completion zsh)"       in ~/.zshrc, below compinit
      fish   mesh completion fish > ~/.config/fish/completions/mesh.fish

    Ids of workflows, queues, types, hosts, nodes and schedules are asked of the mesh that the line names, NATS contexts
    are completed from their files. Without SHELL it is that of $SHELL.
    """  # noqa: D301 - click reads the control character
    from click.shell_completion import get_completion_class

    name = shell or PurePath(os.environ.get("SHELL", "")).name
    made = get_completion_class(name) if name in SHELLS else None
    if made is None:
        raise click.UsageError(f"$SHELL names none of {', '.join(SHELLS)}; say which one")
    from node.cli import mesh

    click.echo(f"# Completion of mesh for {name}; {_INSTALL[name]}")
    click.echo(made(mesh, {}, "mesh", VARIABLE).source())
    if sys.stdout.isatty():
        say(_INSTALL[name])
