"""The command line `mesh`: results on standard output, everything else on standard error.

Each command is in the file of its noun, which is imported when it is needed, and the engine only inside the command's
function, so that `mesh --help` answers at once.

Exit status: 0 done, 1 the thing failed (a workflow failed, an app has problems, nothing of that name), 2 wrong usage,
3 the mesh cannot be reached or does not answer, 130 interrupted.

`mesh` alone and `mesh help` show the help. Shell completion is click's, with values of ours (`node.cli.completing`).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from node.cli.failing import exit_status, sentence
from node.process_settings import collect_garbage_rarely

# Name of a command: where it is, and its line in the help. In the order of the help.
COMMANDS: Final = {
    "up": ("node.cli.up:up", "Run a server and nodes on this machine."),
    "node": ("node.cli.nodes:run_node", "Run one node of a mesh."),
    "run": ("node.cli.run:run_app", "Run one program of an app, or its services."),
    "start": ("node.cli.workflows:start", "Start a workflow."),
    "signal": ("node.cli.workflows:signal_one", "Send a signal to a workflow."),
    "result": ("node.cli.workflows:result", "Wait for a workflow's result and print it."),
    "cancel": ("node.cli.workflows:cancel", "Ask a workflow to stop."),
    "terminate": ("node.cli.workflows:terminate", "End a workflow now, without asking it."),
    "reset": ("node.cli.resetting:reset", "Run a workflow anew from one of its events."),
    "schedule": ("node.cli.schedules:schedule", "Start workflows regularly."),
    "ls": ("node.cli.listing:ls", "List and search workflows."),
    "count": ("node.cli.listing:count", "Count workflows by status, type or queue."),
    "show": ("node.cli.show:show", "Show a workflow: its state, what it waits for, its history."),
    "watch": ("node.cli.watching:watch", "Follow a workflow, or the whole mesh, live."),
    "nodes": ("node.cli.nodes:list_nodes", "List the nodes of the mesh."),
    "functions": ("node.cli.directory:functions", "List the functions of the mesh."),
    "services": ("node.cli.directory:services", "List the services of the mesh."),
    "ps": ("node.cli.directory:ps", "List processes and function calls."),
    "logs": ("node.cli.logs:logs", "Show what nodes and Lua code log."),
    "check": ("node.cli.apps:check", "Say what is wrong with an app."),
    "replay": ("node.cli.replaying:replay", "Check an app's code against recorded histories."),
    "export": ("node.cli.exporting:export_histories", "Write histories to a file."),
    "import": ("node.cli.exporting:import_histories", "Read histories from a file into the mesh."),
    "archive": ("node.cli.archiving:archive", "Write the histories of ended workflows to files."),
    "keys": ("node.cli.keys:keys", "Make and rotate the keys that payloads are encrypted with."),
    "doctor": ("node.cli.doctor:doctor", "Say what is wrong with the mesh."),
    "completion": ("node.cli.completion:completion", "Print what a shell needs to complete commands."),
    "help": ("node.cli.helping:help_", "Show the help of a command."),
}
# The headings of the help, and what is below each, in its order.
SECTIONS: Final = {
    "Run": ("up", "node", "run"),
    "Workflows": ("start", "signal", "result", "cancel", "terminate", "reset", "schedule"),
    "Look": ("ls", "count", "show", "watch", "nodes", "functions", "services", "ps", "logs"),
    "Develop": ("check", "replay", "export", "import"),
    "Operate": ("doctor", "keys", "archive", "completion", "help"),
}


COMPLETION: Final = "_MESH_COMPLETE"  # set by a shell that asks what may come next


class OutputClosed(Exception):
    """Raised when whoever reads our output has seen enough, as `head` has."""


class Commands(click.Group):
    """The commands, imported one by one when asked for; a mistyped one is answered with the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            return None
        if COMPLETION in os.environ:
            from node.cli.completing import attach

            attach(command)
        from node.cli.helping import with_sections

        return with_sections(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a line. Raises UsageError with a proposal."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from mesh.spelling import proposal

            hint = proposal(args[0], COMMANDS, f"there are {', '.join(COMMANDS)}")
            ctx.fail(f"no command {args[0]!r}; {hint}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and any(arg.startswith(("--watch", "-w")) for arg in rest):
            from node.cli.live import with_interval

            rest = with_interval(command, rest)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command of a line. Raises OutputClosed: of a broken pipe click would make exit status 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise OutputClosed from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands under their headings, without importing them."""
        width = max(map(len, COMMANDS))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), COMMANDS[name][1]) for name in names])


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from mesh.version import VERSION

        click.echo(f"mesh {VERSION}")
        ctx.exit()


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the trace of an error, not only what happened.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.pass_context
def mesh(ctx: click.Context) -> None:
    """Functions, processes and durable workflows in Lua, on a mesh of nodes.

    The mesh is found as the `nats` tool finds its server: -s/--server (or --nats), NATS_URL, a NATS context, else
    nats://localhost:4222. Commands that read take --json.

    \b
    Exit status: 0 done, 1 the thing failed, 2 wrong usage, 3 the mesh cannot be
    reached or does not answer, 130 interrupted.

    \b
    `mesh help COMMAND` tells more, `mesh completion` has the shell complete
    commands, options and values.
    """  # noqa: D301 - click reads the control character
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _end_of_options(args: Sequence[str]) -> int:
    """How much of a line may hold our own `--debug`: one adds it at the end, after an error.

    Not after `--`, and not after `run`: there it may be the program's.
    """
    command = next((at for at, arg in enumerate(args) if not arg.startswith("-")), len(args))
    if list(args[command : command + 1]) == ["run"]:
        return command + 1
    return args.index("--") if "--" in args else len(args)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its status."""
    if arguments is None:  # the process is ours
        collect_garbage_rarely()
    args = list(sys.argv[1:] if arguments is None else arguments)
    options = args[: _end_of_options(args)]
    debug = "--debug" in options or bool(os.environ.get("MESH_DEBUG"))
    args = [arg for arg in options if arg != "--debug"] + args[len(options) :]
    try:
        status = mesh.main(args, prog_name="mesh", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        status = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        status = 130
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (OutputClosed, BrokenPipeError):
        # Python must not complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:
        if debug:
            raise
        from node.cli.printing import say

        say(f"mesh: {sentence(error)}")
        status = exit_status(error)
    sys.exit(status if isinstance(status, int) else 0)
