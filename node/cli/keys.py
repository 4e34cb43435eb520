"""`mesh keys`: the files with the keys that payloads are encrypted with. No command prints a key."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from node.cli.printing import say

FILE = functools.partial(
    click.argument, "file", type=click.Path(dir_okay=False, path_type=Path), envvar="MESH_KEYS", metavar="FILE"
)


@click.group("keys")
def keys() -> None:
    """Make and rotate the keys that payloads are encrypted with.

    \b
    mesh keys new mesh-keys.yaml            a file with one key
    mesh node APP --keys mesh-keys.yaml     a node that uses it; so do all commands (MESH_KEYS)
    mesh keys rotate mesh-keys.yaml         a further key, which encrypts from now on

    What was encrypted before stays as it is and needs the key of then. docs/security.md says what is encrypted.
    """  # noqa: D301 - click reads the control character


def id_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option of a key's name."""
    return click.option("--id", "key_id", metavar="ID", help="Name of the key.  [default: today's date and a number]")(
        command
    )


@keys.command("new")
@FILE()
@id_option
def new(file: Path, key_id: str | None) -> None:
    """Make FILE, with one key. Only its owner can read it."""
    from mesh.key_files import KeyFileContent, new_key, new_key_id, write_key_file

    name = key_id or new_key_id()
    write_key_file(file, KeyFileContent({name: new_key()}, name), new=True)
    click.echo(name)
    say(f"{file} has key {name}; give it to all nodes and clients, over a way that is safe")


@keys.command("rotate")
@FILE()
@id_option
@click.option("--prepare", is_flag=True, help="Only add the key: give the file to all before it is used.")
@click.option("--to", "primary", metavar="ID", help="Add no key; encrypt with this one of the file from now on.")
def rotate(file: Path, key_id: str | None, *, prepare: bool, primary: str | None) -> None:
    """Add a key to FILE, with which is encrypted from now on. Nodes see it within a second, or at SIGHUP.

    Whoever does not have the new key cannot read what is written from then on: workflows there are suspended until they
    do. To avoid that, in two steps: `--prepare`, give the file to all, then `--to ID` and give it to all again.
    """
    from mesh.key_files import KeyFileContent, new_key, new_key_id, read_key_file, write_key_file

    if primary is not None and (prepare or key_id is not None):
        raise click.UsageError("--to uses a key that is there; it excludes --id and --prepare")
    content = read_key_file(file)
    if primary is not None:
        write_key_file(file, KeyFileContent(content.keys, primary), new=False)
        click.echo(primary)
        return
    name = key_id or new_key_id()
    if name in content.keys:
        raise click.UsageError(f"{file} has a key {name} already; choose another --id")
    chosen = content.primary if prepare else name
    write_key_file(file, KeyFileContent({**content.keys, name: new_key()}, chosen), new=False)
    click.echo(name)
    if prepare:
        say(f"key {name} is in {file} and not used yet; once all have the file: mesh keys rotate {file} --to {name}")


@keys.command("ls")
@FILE()
def ls(file: Path) -> None:
    """List the keys of FILE: name, fingerprint, and which one encrypts. The fingerprint tells nothing of the key."""
    from mesh.encryption import fingerprint
    from mesh.key_files import read_key_file

    content = read_key_file(file)
    for key_id, secret in content.keys.items():
        click.echo(f"{key_id}  {fingerprint(secret)}{'  primary' if key_id == content.primary else ''}")
