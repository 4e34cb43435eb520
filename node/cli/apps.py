"""Apps on disk: reading their registry for a node, and `mesh check`."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from node.registry import Problem, Registry

APP: Final = click.Path(exists=True, file_okay=False, path_type=Path)


def add_to_path(app: Path) -> None:
    """Let `function.python` sources be found: first in the app's directory, then in the current one."""
    for directory in (Path.cwd(), app.resolve()):
        text = str(directory)
        if text in sys.path:
            sys.path.remove(text)
        sys.path.insert(0, text)


def has_work(registry: Registry) -> bool:
    """Whether a node has anything to do with this registry."""
    return bool(registry.functions() or registry.workers() or registry.processes() or registry.consumers())


def as_record(problem: Problem) -> dict[str, Any]:
    """A problem as `--json` shows it."""
    return {"file": str(problem.file), "line": problem.line, "entry": problem.entry, "reason": problem.reason}


@click.command()
@click.argument("app", type=APP)
@click.option("--strict", is_flag=True, help="Let notes, such as kinds nobody handles, count as problems.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print {entries, problems: [{file, line, entry, reason}], notes: [...]}."
)
def check(app: Path, *, strict: bool, as_json: bool) -> None:
    """Check the registry in the directory APP and compile every Lua file of it.

    Prints each problem as FILE:LINE: ENTRY: REASON. Exit status 1 when there is one. No server is needed.
    """
    from node.cli.printing import print_json
    from node.machine.vm import compile_error
    from node.registry import check_registry, load_registry

    add_to_path(app)
    registry = load_registry(app, environ=os.environ)
    problems = sorted({*check_registry(registry, compile_error), *python_problems(registry)}, key=_by_place)
    notes = list(registry.notes)
    if as_json:
        print_json(
            {
                "entries": len(registry.entries),
                "problems": [as_record(p) for p in problems],
                "notes": [as_record(n) for n in notes],
            }
        )
    else:
        for problem in problems:
            click.echo(_as_line(problem))
        for note in notes:
            click.echo(f"note: {_as_line(note)}", err=not strict)
        click.echo(_summary(app, registry, len(problems)), err=True)
    if problems or (strict and notes):
        raise click.exceptions.Exit(1)


def python_problems(registry: Registry) -> list[Problem]:
    """The Python functions of a registry that cannot be imported."""
    from node.functions.python_calls import PythonFunctionMissing, load_python
    from node.registry import Problem, PythonFunctionEntry

    problems = []
    for entry_id, view in registry.functions().items():
        if isinstance(view, PythonFunctionEntry):
            entry = registry.entries[entry_id]
            try:
                load_python(view)
            except PythonFunctionMissing as error:
                reason = str(error).removeprefix(f"{entry_id}: ")
            except Exception as error:
                reason = f"{view.module} raises {type(error).__name__} when it is imported: {error}"
            else:
                continue
            problems.append(Problem(entry.file, entry.line_of(("source",)), entry_id, reason))
    return problems


def _by_place(problem: Problem) -> tuple[str, int, str, str]:
    return str(problem.file), problem.line, problem.entry or "", problem.reason


def _as_line(problem: Problem) -> str:
    """The problem with its file as seen from here, where that is shorter."""
    try:
        shown = problem.file.relative_to(Path.cwd())
    except ValueError:
        shown = problem.file
    return str(dataclasses.replace(problem, file=shown))


def _summary(app: Path, registry: Registry, problems: int) -> str:
    verdict = "no problems" if not problems else "one problem" if problems == 1 else f"{problems} problems"
    if not registry.entries and problems:
        return f"{app}: no entry can be used, {verdict}"
    if not registry.entries:
        return f"{app}: no entries; a registry file is YAML or JSON with `version`, `namespace` and `entries`"
    counts = [
        f"{len(found)} {name if len(found) == 1 else plural}"
        for name, plural, found in (
            ("workflow", "workflows", registry.workflows()),
            ("function", "functions", registry.functions()),
            ("process", "processes", registry.processes()),
            ("service", "services", registry.services()),
            ("worker", "workers", registry.workers()),
        )
        if found
    ]
    runs = f" ({', '.join(counts)})" if counts else ""
    return f"{app}: {len(registry.entries)} entries{runs}, {verdict}"
