"""How a workflow wants a function to be called (contract 11.5).

Pure. Not here: when a failed attempt is tried again (`node.workflows.retry`), what is done about it
(`node.workflows.attempts`), and that the limits are kept (`node.workflows.calls`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short  # what somebody sends may be nested deeper than repr goes
from typing import Any, Final

from node.workflows.retry import RetryPolicy, decode_policy, duration_option

RUNTIME_KEYS: Final = (
    "start_to_close_timeout",
    "schedule_to_close_timeout",
    "schedule_to_start_timeout",
    "heartbeat_timeout",
)
# All that an option may be called: those that entries for Temporal have and nothing here looks at, too.
CALL_KEYS: Final = (
    *RUNTIME_KEYS, "retry_policy", "id", "wait_for_cancellation", "task_queue", "disable_eager_execution", "summary",
    "priority",
)  # fmt: skip
CALL_SPELLINGS: Final = ("", "activity.", "temporal.activity.")
DEFAULT_START_TO_CLOSE_NS: Final = 600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a function is called from a workflow. Nanoseconds, 0 = no limit. id: how errors name the call."""

    policy: RetryPolicy
    start_to_close_ns: int = DEFAULT_START_TO_CLOSE_NS
    schedule_to_close_ns: int = 0
    schedule_to_start_ns: int = 0
    heartbeat_ns: int = 0
    id: str = ""


def decode_call_options(options: Mapping[str, Any]) -> CallOptions:
    """Read the options of a call; `activity.X`, `temporal.activity.X` and X are the same. Raises ValueError."""
    plain = {
        key.removeprefix("temporal.").removeprefix("activity."): value
        for key, value in options.items()
        if isinstance(key, str)
    }
    times = {}
    for key in RUNTIME_KEYS:
        if plain.get(key) is not None:
            times[key.removesuffix("_timeout") + "_ns"] = duration_option(key, plain[key])
    policy = plain.get("retry_policy") or None  # an empty Lua table arrives as an empty list
    if policy is not None and not isinstance(policy, Mapping):
        raise ValueError("retry_policy must be a table")
    name = plain.get("id") or ""
    if not isinstance(name, str):
        raise ValueError(f"id must be a text, got {short(name)}")
    return CallOptions(policy=decode_policy(policy), id=name, **times)


DEFAULT_CALL_OPTIONS: Final = decode_call_options({})
