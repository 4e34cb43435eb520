"""Key files and `mesh keys`: what they may say, that no key is ever shown, and that a slip of the pen stops nothing."""

from __future__ import annotations

import base64
import logging
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mesh.encryption import BadKeys, Keyring, Keys, fingerprint
from mesh.envelopes import Closed, read_encrypted
from mesh.key_files import LOOK_EVERY_S, KeyFile, KeyFileContent, read_key_file, write_key_file
from node.cli import mesh as command
from node.keys import NoKeys, keys_of
from node.registry import load_registry
from tests.apps import QUEUE, write_app

ONE, TWO = b"1" * 32, b"2" * 32
CONTEXT = f"mesh.wf.{QUEUE}.order-1.start"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def base64_of(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"primary: 2026-11-01\nkeys:\n  2026-11-01: {base64_of(ONE)}\n",
        f'{{"primary": "2026-11-01", "keys": {{"2026-11-01": "{base64_of(ONE)}"}}}}',
        f"keys: {{2026-11-01: '{base64_of(ONE)}'}}\nprimary: '2026-11-01'\n",
    ],
)
def test_yaml_and_json_are_read_and_every_id_is_a_text(tmp_path: Path, text: str) -> None:
    assert read_key_file(written(tmp_path / "keys", text)) == KeyFileContent({"2026-11-01": ONE}, "2026-11-01")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has to say"),
        ("primary: a\nkeys: [1]\n", "it has to say"),
        (f"primary: [a]\nkeys: {{a: {base64_of(ONE)}}}\n", "it has to say"),
        (f"primary: b\nkeys: {{a: {base64_of(ONE)}}}\n", "primary names key 'b'"),
        ("primary: a\nkeys: {a: c2hvcnQtc2VjcmV0}\n", "key a has 12 bytes"),
        ("primary: a\nkeys: {a: 'short-secret!'}\n", "key a is no base64"),
        (f"primary: a\nkeyz: {{}}\nkeys: {{a: {base64_of(ONE)}}}\n", "fields that are not known: keyz"),
        ("primary: a\nkeys: {a: 'short-secret\n", "it is no YAML, line"),
        ("primary: a\nkeys: {a: short-secret, a: short-secret}\n", "it is no YAML, line"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_what_is_in_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadKeys, match=says) as refused:
        KeyFile(written(tmp_path / "keys.yaml", text))
    assert "keys.yaml" in str(refused.value)
    assert "short-secret" not in str(refused.value)
    assert "c2hvcnQ" not in str(refused.value)


def test_a_file_that_is_not_there_is_made_by_a_command(tmp_path: Path) -> None:
    with pytest.raises(BadKeys, match="mesh keys new"):
        KeyFile(tmp_path / "keys.yaml")


def test_others_who_may_read_the_file_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_key_file(tmp_path / "keys.yaml", KeyFileContent({"a": ONE}, "a"), new=True)
    assert (tmp_path / "keys.yaml").stat().st_mode & 0o777 == 0o600
    with caplog.at_level(logging.WARNING):
        KeyFile(tmp_path / "keys.yaml")
        assert not caplog.records
        (tmp_path / "keys.yaml").chmod(0o640)
        KeyFile(tmp_path / "keys.yaml")
    assert "others may read or write it (mode 640); chmod 600 it" in caplog.text
    caplog.clear()
    (tmp_path / "hosts").write_text("127.0.0.1 localhost")
    with pytest.raises(BadKeys):
        KeyFile(tmp_path / "hosts")
    assert not caplog.records  # no key file, so nothing that others may not read


def test_a_file_is_looked_at_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.yaml"
    write_key_file(path, KeyFileContent({"a": ONE}, "a"), new=True)
    ring = KeyFile(path)
    write_key_file(path, KeyFileContent({"a": ONE, "b": TWO}, "b"), new=False)
    ring.look()
    assert (ring.key_ids, ring.primary) == (["a", "b"], "b")
    path.write_text(f"primary: c\nkeys: {{a: {base64_of(ONE)}}}\n")
    ring.look()
    assert (ring.key_ids, ring.primary) == (["a", "b"], "b")
    assert "the keys stay as they are" in caplog.text
    path.unlink()
    ring.look()
    assert ring.primary == "b"
    assert base64_of(ONE) not in caplog.text


def test_a_missing_key_has_the_file_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client need not be told: it looks when it meets a key that it does not have, or encrypts."""
    path = tmp_path / "keys.yaml"
    write_key_file(path, KeyFileContent({"a": ONE}, "a"), new=True)
    ring = KeyFile(path)
    sealed = Keyring({"b": TWO}, "b").seal(CONTEXT, b"x")
    assert isinstance(ring.open(CONTEXT, sealed), Closed)
    write_key_file(path, KeyFileContent({"a": ONE, "b": TWO}, "b"), new=False)
    later_s = time.monotonic() + LOOK_EVERY_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    assert ring.open(CONTEXT, sealed) == b"x"
    assert read_encrypted(ring.seal(CONTEXT, b"y")).key_id == "b"


def test_the_keys_of_a_worker_are_those_of_its_queue(tmp_path: Path) -> None:
    own, off, rest = Keyring({"own": ONE}, "own"), None, Keyring({"own": TWO, "rest": TWO}, "rest")
    keys = Keys(rest, {"orders": own, "open": off})
    sealed = {queue: keys.seal(f"mesh.wf.{queue}.o-1.start", b"x") for queue in ("orders", "open", "others")}
    assert sealed["open"] == b"x"
    assert [read_encrypted(sealed[queue]).key_id for queue in ("orders", "others")] == ["own", "rest"]
    # The one of the queue, though another ring has a key of that name.
    assert [keys.open(f"mesh.wf.{queue}.o-1.start", sealed[queue]) for queue in ("orders", "others")] == [b"x", b"x"]
    of_call = keys.seal("mesh.fn.app.f mesh.wf.orders.o-1.ret.1.1.1.ab", b"x")
    assert read_encrypted(of_call).key_id == "own"


def test_a_registry_says_which_worker_has_which_keys(tmp_path: Path) -> None:
    write_key_file(tmp_path / "own.yaml", KeyFileContent({"own": ONE}, "own"), new=True)
    app = write_app(tmp_path, workflows={"w": "return 1"}, worker_options={"keys": "own.yaml"})
    keys = keys_of(load_registry(app, environ={}), None)
    assert isinstance(keys, Keys)
    assert read_encrypted(keys.seal(CONTEXT, b"x")).key_id == "own"
    # What is of no queue of a worker holds what a worker was given all the same.
    for context in ("mesh.logs.a", "outcome call.x", "answer mesh.api.result", "mesh.wf.elsewhere.child.start"):
        assert read_encrypted(keys.seal(context, b"x")).key_id == "own"
    bare = {
        "name": "bare", "kind": "mesh.worker", "client": "app:client", "task_queue": "bare", "lifecycle": {"auto_start": True}
    }  # fmt: skip
    app = write_app(tmp_path, workflows={"w": "return 1"}, worker_options={"keys": "own.yaml"}, entries=[bare])
    keys = keys_of(load_registry(app, environ={}), None)
    assert keys is not None
    assert keys.seal("mesh.wf.bare.o-1.start", b"x") == b"x"
    app = write_app(tmp_path, workflows={"w": "return 1"}, worker_options={"encryption": "off"})
    keys = keys_of(load_registry(app, environ={}), Keyring({"a": ONE}, "a"))
    assert keys is not None
    assert keys.seal(CONTEXT, b"x") == b"x"
    app = write_app(tmp_path, workflows={"w": "return 1"}, worker_options={"encryption": "required"})
    with pytest.raises(NoKeys, match="worker app:worker requires encryption"):
        keys_of(load_registry(app, environ={}), None)
    app = write_app(tmp_path, workflows={"w": "return 1"})
    assert keys_of(load_registry(app, environ={}), None) is None


def test_services_that_cannot_read_ciphertext_are_noted(tmp_path: Path) -> None:
    foreign = {"name": "tax", "kind": "function.nats", "subject": "svc.tax"}
    app = write_app(tmp_path, entries=[foreign], worker_options={"encryption": "required"})
    notes = [str(note) for note in load_registry(app, environ={}).notes]
    assert len(notes) == 1
    assert (
        "app:tax: reads no encrypted payloads: workflows of app:worker, which requires them, cannot call it" in notes[0]
    )
    assert load_registry(write_app(tmp_path, entries=[foreign]), environ={}).notes == ()


def test_keys_are_made_rotated_and_listed_and_never_shown(tmp_path: Path) -> None:
    path, run = tmp_path / "keys.yaml", CliRunner()
    said = [run.invoke(command, ["keys", "new", str(path), "--id", "a"])]
    assert path.stat().st_mode & 0o777 == 0o600
    said.append(run.invoke(command, ["keys", "rotate", str(path), "--id", "b", "--prepare"]))
    assert read_key_file(path).primary == "a"
    said.append(run.invoke(command, ["keys", "rotate", str(path), "--to", "b"]))
    assert read_key_file(path).primary == "b"
    said.append(run.invoke(command, ["keys", "rotate", str(path), "--id", "c"]))
    content = read_key_file(path)
    assert (list(content.keys), content.primary) == (["a", "b", "c"], "c")
    said.append(run.invoke(command, ["keys", "ls", str(path)]))
    assert [line.split() for line in said[-1].stdout.splitlines()] == [
        ["a", fingerprint(content.keys["a"])], ["b", fingerprint(content.keys["b"])],
        ["c", fingerprint(content.keys["c"]), "primary"],
    ]  # fmt: skip
    assert [result.exit_code for result in said] == [0] * 5
    for secret in content.keys.values():
        assert not any(base64_of(secret) in result.output for result in said)
    again = run.invoke(command, ["keys", "new", str(path)])
    assert isinstance(again.exception, BadKeys)
    assert read_key_file(path) == content
    assert not [name for name in os.listdir(tmp_path) if name != "keys.yaml"]


def test_a_file_that_is_rotated_stays_where_it_is_and_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    path, link = tmp_path / "kept" / "keys.yaml", tmp_path / "link.yaml"
    write_key_file(path, KeyFileContent({"a": ONE}, "a"), new=True)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 1235)
    before = path.stat()
    link.symlink_to(path)
    write_key_file(link, KeyFileContent({"a": ONE, "b": TWO}, "b"), new=False)
    assert link.is_symlink()
    assert read_key_file(path).primary == "b"
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_keys_that_two_people_make_on_one_day_have_two_names(tmp_path: Path) -> None:
    said = [CliRunner().invoke(command, ["keys", "new", str(tmp_path / name)]) for name in ("mine", "yours")]
    mine, yours = (read_key_file(tmp_path / name) for name in ("mine", "yours"))
    assert said[0].exit_code == said[1].exit_code == 0
    assert mine.primary != yours.primary
