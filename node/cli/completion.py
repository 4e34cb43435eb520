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


# As click's, and what that cannot: bash takes a colon for the end of a word, and most of our names have one. So words
# are put together again, and what stands before the last colon is left out of the answers.
_BASH: Final = """\
_mesh_completion() {
    local IFS=$'\\n' response answer type value word before at=0 i
    local -a words=()
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ $COMP_WORDBREAKS == *:* ]] && [[ $word == :* || ${words[-1]} == *: ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        ((i == COMP_CWORD)) && at=$((${#words[@]} - 1))
    done
    before=${words[at]%"${words[at]##*:}"}
    [[ $COMP_WORDBREAKS == *:* ]] || before=
    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$at _MESH_COMPLETE=bash_complete "$1" 2>/dev/null)
    for answer in $response; do
        IFS=',' read -r type value <<< "$answer"
        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            printf -v value '%q' "${value#"$before"}"
            COMPREPLY+=("$value")
        fi
    done
}
complete -o nosort -F _mesh_completion mesh
"""


def source_for(shell: str) -> str:
    """What a shell has to read. shell: one of SHELLS."""
    if shell == "bash":
        return _BASH
    from click.shell_completion import get_completion_class

    from node.cli import mesh

    made = get_completion_class(shell)
    return made(mesh, {}, "mesh", VARIABLE).source() if made is not None else ""


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
    name = shell or PurePath(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise click.UsageError(f"$SHELL names none of {', '.join(SHELLS)}; say which one")
    click.echo(f"# Completion of mesh for {name}; {_INSTALL[name]}")
    click.echo(source_for(name))
    if sys.stdout.isatty():
        say(_INSTALL[name])
