"""The one table of built-in Lua modules: which names exist, which this version has, which a workflow may use.

Not here: the modules themselves, and what each offers. A workflow's code is run again from its history, so it may only
use modules that are deterministic or whose results are recorded.
"""

from __future__ import annotations

from node.registry.entries import did_you_mean

# Name -> may a workflow, or a library it reaches, list it?
MODULES: dict[str, bool] = {
    # pure: the same arguments give the same result
    "base64": True,
    "compress": True,
    "expr": True,
    "hash": True,
    "html": True,
    "json": True,
    "payload": True,
    "template": True,
    "text": True,
    "treesitter": True,
    "yaml": True,
    # recorded in the history or aware of workflows
    "contract": True,
    "crypto": True,
    "ctx": True,
    "funcs": True,
    "os": True,
    "process": True,
    "time": True,
    "uuid": True,
    "workflow": True,
    # always present as globals; listing them does no harm
    "channel": True,
    "coroutine": True,
    "errors": True,
    "math": True,
    "package": True,
    "string": True,
    "table": True,
    # touch the world, unrecorded
    "cdc": False,
    "cloudstorage": False,
    "env": False,
    "eval": False,
    "events": False,
    "excel": False,
    "exec": False,
    "fs": False,
    "http": False,
    "http_client": False,
    "hub": False,
    "io": False,
    "logger": False,
    "metrics": False,
    "pg": False,
    "queue": False,
    "registry": False,
    "security": False,
    "sql": False,
    "store": False,
    "stream": False,
    "system": False,
    "tty": False,
    "websocket": False,
}

AVAILABLE: frozenset[str] = frozenset(
    {
        "base64",
        "channel",
        "coroutine",
        "crypto",
        "ctx",
        "env",
        "errors",
        "events",
        "funcs",
        "hash",
        "http_client",
        "io",
        "json",
        "logger",
        "math",
        "os",
        "package",
        "payload",
        "process",
        "queue",
        "registry",
        "sql",
        "store",
        "string",
        "table",
        "time",
        "uuid",
        "workflow",
    }
)


def module_fault(name: str) -> str | None:
    """Say why code cannot list this module, None if it can."""
    if ":" in name:
        return f"module {name!r} has a namespace: modules are built in; import other entries under `imports`"
    if name not in MODULES:
        return f"unknown module {name!r}{did_you_mean(name, MODULES)}"
    if name not in AVAILABLE:
        return f"module {name!r} exists, but not in this version; available are {', '.join(sorted(AVAILABLE))}"
    return None


def workflow_fault(name: str) -> str | None:
    """Say why a workflow cannot use this module, None if it can or if no such module exists."""
    if MODULES.get(name, True):
        return None
    return (
        f"module {name!r} is not allowed in workflows, its results are not recorded and a replay would differ; "
        "put the code that needs it in a function and call that with funcs.call"
    )
