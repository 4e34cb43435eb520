"""Key files: where the keys of a keyring come from, and how they are replaced without a restart.

    primary: 2026-11
    keys:
      2026-10: 8vJ0...=          # base64 of 32 random bytes
      2026-11: Zk1q...=

YAML or JSON; every id is a text, however it looks. A file that has changed is read again when a key is missing, at most
a second after it was used, and when its owner says so (`KeyFile.look`). One that cannot be used any more is logged, and
the keys of before go on being used: a slip of the pen stops nothing.

Invariant: no key gets into a text, a log line or an error.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import os
import secrets
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from mesh.encryption import KEY_BYTES, BadKeys, Keyring, check_keys

LOOK_EVERY_S: Final = 1.0
FILE_BYTES_MAX: Final = 1024 * 1024
_OTHERS_MAY_READ: Final = stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH

_log = logging.getLogger(__name__)


class KeyFileContent(NamedTuple):
    """What a key file says."""

    keys: dict[str, bytes]
    primary: str | None


class KeyFile(Keyring):
    """The keyring of a file, which is looked at again when it has changed. Raises BadKeys when it cannot be used."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._seen = _state_of(self.path)
        self._looked_s = time.monotonic()
        super().__init__(*read_key_file(self.path))
        _warn_of_readers(self.path)

    def seal(self, context: str, payload: bytes) -> bytes:
        """As in a keyring, with the keys of now."""
        if time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self.look()
        return super().seal(context, payload)

    def _looked_for(self, key_id: str) -> bytes | None:
        if time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self.look()
        return self._keys.get(key_id)

    def look(self, *, anyway: bool = False) -> None:
        """Read the file again if it has changed, or anyway. What is wrong with it is logged."""
        self._looked_s = time.monotonic()
        try:
            seen = _state_of(self.path)
            if seen == self._seen and not anyway:
                return
            self._seen = seen
            _warn_of_readers(self.path)
            keys, primary = read_key_file(self.path)
        except BadKeys as error:
            _log.error("the keys stay as they are: %s", error)
            return
        before = self.primary
        self.replace(keys, primary)
        _log.info("keys of %s: %s; primary %s (was %s)", self.path, ", ".join(self.key_ids), primary, before)


def read_key_file(path: Path) -> KeyFileContent:
    """Read a key file. Raises BadKeys, whose text says what is wrong and holds no key."""
    where = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadKeys(where, f"it cannot be read ({error.strerror}); `mesh keys new {path}` makes one") from None
    if len(data) > FILE_BYTES_MAX:
        raise BadKeys(where, f"it has {len(data)} bytes; that is no key file")
    said = _parsed(where, data)
    given, primary = said.get("keys"), said.get("primary")
    if not isinstance(given, dict) or (primary is not None and not isinstance(primary, str)):
        raise BadKeys(where, "it has to say `primary: <id>` and `keys: {<id>: <base64 of 32 bytes>}`")
    unknown = sorted(str(name) for name in said if name not in ("keys", "primary"))
    if unknown:
        raise BadKeys(where, f"it has fields that are not known: {', '.join(unknown)[:200]}")
    keys = {str(key_id): _secret(where, str(key_id), written) for key_id, written in given.items()}
    check_keys(where, keys, primary or None)
    return KeyFileContent(keys, primary or None)


def write_key_file(path: Path, content: KeyFileContent, *, new: bool) -> None:
    """Write a key file that only its owner can read, in one piece; one that is there keeps its owner and mode.

    new: there must be none. Raises BadKeys.
    """
    check_keys(str(path), content.keys, content.primary)
    lines = [f"primary: {json.dumps(content.primary)}", "keys:"]
    lines += [f"  {json.dumps(key_id)}: {base64.b64encode(secret).decode()}" for key_id, secret in content.keys.items()]
    real = Path(os.path.realpath(path))  # a link to it goes on being one
    beside = real.with_name(f".{real.name}.{secrets.token_hex(4)}")
    try:
        if new and path.exists():
            raise BadKeys(str(path), "there is such a file already; `mesh keys rotate` adds a key to it")
        before = real.stat() if real.exists() else None
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if before is not None:
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    # Rotated by root, say: the nodes must be able to read it as before.
                    with contextlib.suppress(PermissionError):
                        os.chown(beside, before.st_uid, before.st_gid)
                beside.chmod(stat.S_IMODE(before.st_mode))
            beside.rename(real)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadKeys(str(path), f"it cannot be written ({error.strerror})") from None


def new_key() -> bytes:
    """A random key."""
    return secrets.token_bytes(KEY_BYTES)


def new_key_id() -> str:
    """A name for a key that is made today, other than those that anybody else makes today.

    Two keys of one name on two machines could not be told apart from ciphertext that was changed.
    """
    return f"{datetime.now(UTC):%Y-%m-%d}-{secrets.token_hex(3)}"


def _parsed(where: str, data: bytes) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        # `base`: every scalar is a text; an id such as 2026-11-01 would else be a date.
        said = YAML(typ="base", pure=True).load(data.decode("utf-8-sig"))
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        # The text of the error may quote a line with a key in it.
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        raise BadKeys(where, "it is no YAML" + (f", line {mark.line + 1}" if mark is not None else "")) from None
    if not isinstance(said, dict):
        raise BadKeys(where, "it has to say `primary: <id>` and `keys: {<id>: <base64 of 32 bytes>}`")
    return said


def _secret(where: str, key_id: str, written: object) -> bytes:
    try:
        return base64.b64decode("".join(str(written).split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadKeys(where, f"key {key_id[:80]} is no base64") from None


def _state_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise BadKeys(str(path), f"it cannot be read ({error.strerror}); `mesh keys new {path}` makes one") from None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _warn_of_readers(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0
    if mode & _OTHERS_MAY_READ:
        _log.warning("%s holds keys and others may read or write it (mode %o); chmod 600 it", path, mode)
