"""Commands of the command line in this process, for tests that type many of them: a process of its own costs half a second.

What a real process does differently (signals, terminals, pipes that close) is tested with `tests.cluster.mesh_command`.
"""

from __future__ import annotations

import os
from pathlib import Path

import anyio.to_thread
from click.testing import CliRunner

from node.cli import main
from tests.cluster import ANSWER_TIMEOUT, Finished


async def typed(*arguments: str, url: str | None = None, stdin: str = "", directory: Path | None = None) -> Finished:
    """Run `mesh` with these arguments in a thread with its own event loop. url: put into NATS_URL."""
    plain = dict.fromkeys(name for name in os.environ if name.startswith(("NATS_", "MESH_")))
    env = {**plain, "XDG_CONFIG_HOME": "/nonexistent", "NATS_TIMEOUT": ANSWER_TIMEOUT, "NATS_URL": url}

    def run() -> Finished:
        status: str | int | None = 0
        here = Path.cwd()
        with CliRunner().isolation(stdin, env=env) as (out, err, _):
            try:
                os.chdir(directory or here)
                main(arguments)
            except SystemExit as left:
                status = left.code
            finally:
                os.chdir(here)
            return Finished(int(status or 0), out.getvalue().decode(), err.getvalue().decode())

    return await anyio.to_thread.run_sync(run)
