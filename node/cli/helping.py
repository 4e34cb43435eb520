"""`mesh help`: the help of a command, as people type it who know `git help`."""

from __future__ import annotations

import click


@click.command("help")
@click.argument("commands", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_(ctx: click.Context, commands: tuple[str, ...]) -> None:
    """Show the help of COMMAND, the same as `mesh COMMAND --help`; without one, that of mesh."""
    shown = ctx.parent or ctx
    for name in commands:
        group = shown.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{shown.command_path} has no commands below it")
        _, command, _ = group.resolve_command(shown, [name])
        if command is not None:
            shown = click.Context(command, info_name=name, parent=shown)
    click.echo(shown.get_help())
