"""`mesh help`, and how the help of a command looks: its own options first, those of the connection below them."""

from __future__ import annotations

import click

from node.cli.connecting import PARAMETERS


def with_sections(command: click.Command) -> click.Command:
    """Have the help of a command, and of those below it, list the options of the connection apart."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_sections(below)
    elif any(parameter.name == "url" for parameter in command.params):
        # Of this one command: its class is whatever made it.
        setattr(command, "format_options", lambda ctx, formatter: _format(command, ctx, formatter))  # noqa: B010
    return command


def _format(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    own: list[tuple[str, str]] = []
    connection: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and isinstance(parameter, click.Option):
            (connection if parameter.name in PARAMETERS else own).append(record)
    for title, records in (("Options", own), ("Which mesh, and who we are there", connection)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


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
