"""The `retry` option of funcs: which failed calls of a function or process are made again, and when (contract 10.3).

Pure. The calls of a workflow have a retry policy instead (`node.workflows.retry`): their attempts are in its history,
these are forgotten with their caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short  # what somebody sends may be nested deeper than repr goes
from typing import Final

from mesh.failure import Failure, Kind
from node.workflows.retry import duration_option

_NEVER_RETRIED: Final = frozenset({Kind.INVALID, Kind.PERMISSION_DENIED, Kind.INTERNAL})


@dataclass(frozen=True, slots=True)
class RetryOption:
    """The `retry` option of funcs as it was read. Seconds."""

    max_attempts: int
    initial_s: float
    max_s: float
    factor: float
    jitter: float
    retry_kinds: frozenset[str] | None
    skip_kinds: frozenset[str]

    def again(self, attempt: int, failure: Failure) -> bool:
        """Whether a call that failed in this attempt is made again."""
        if attempt >= self.max_attempts or failure.retryable is False or failure.kind == Kind.CANCELED:
            return False
        if failure.kind in self.skip_kinds:
            return False
        return failure.kind in self.retry_kinds if self.retry_kinds is not None else failure.kind not in _NEVER_RETRIED

    def delay_s(self, attempt: int, chance: float) -> float:
        """The pause after an attempt; chance: 0 to 1."""
        delay = min(self.initial_s * self.factor ** (attempt - 1), self.max_s)
        return delay * (1 + self.jitter * (2 * chance - 1))


def decode_retry(table: object) -> RetryOption | None:
    """Read the `retry` option; None when it is not active. Raises ValueError that names the key."""
    if table is None or table == []:  # an empty Lua table arrives as an empty list
        return None
    if not isinstance(table, Mapping):
        raise ValueError(f"retry must be a table, got {short(table)}")
    attempts = table.get("max_attempts", 1)
    if isinstance(attempts, bool) or not isinstance(attempts, int):
        raise ValueError(f"retry.max_attempts must be a whole number, got {short(attempts)}")

    def seconds(key: str, default_ms: int) -> float:
        return duration_option(f"retry.{key}", table.get(key, default_ms)) / 1e9

    def number(key: str, default: float) -> float:
        value = table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ValueError(f"retry.{key} must be a number of at least 0, got {short(value)}")
        return float(value)

    def kinds(key: str) -> frozenset[str]:
        value = table.get(key) or []
        if not isinstance(value, list) or not all(isinstance(kind, str) for kind in value):
            raise ValueError(f"retry.{key} must be a list of error kinds, got {short(value)}")
        return frozenset(value)

    option = RetryOption(
        attempts, seconds("initial_delay", 100), seconds("max_delay", 10_000), number("backoff_factor", 2.0),
        number("jitter", 0.1), kinds("retry_kinds") if table.get("retry_kinds") else None, kinds("skip_kinds"),
    )  # fmt: skip
    return option if attempts > 1 else None


def merged_retry(default: object, given: object) -> object:
    """The retry options of a call: the entry's, those of the call over them key by key."""
    if isinstance(default, Mapping) and isinstance(given, Mapping):
        return {**default, **given}
    return default if given is None or given == [] else given
