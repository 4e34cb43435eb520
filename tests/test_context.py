"""NATS contexts as the `nats` tool writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesh.context import BadContext, Context, UnknownContext, context_names, load_context, selected_context

# What `nats context add` of natscli 0.2 writes, keys that are not about connecting included.
WRITTEN_BY_NATS = {
    "description": "production",
    "url": "nats://a.example:4222,nats://b.example:4222",
    "socks_proxy": "",
    "token": "",
    "user": "",
    "password": "",
    "creds": "~/keys/$STAGE/mesh.creds",
    "nkey": "",
    "cert": "${CERTS}/client.pem",
    "key": "$CERTS/client.key",
    "ca": "/etc/ca.pem",
    "nsc": "",
    "jetstream_domain": "",
    "jetstream_api_prefix": "",
    "jetstream_event_prefix": "",
    "inbox_prefix": "_INBOX_me",
    "user_jwt": "",
    "color_scheme": "",
    "tls_first": True,
    "windows_cert_store": "",
    "windows_ca_certs_match": None,
}


def environment(tmp_path: Path, **contexts: object) -> dict[str, str]:
    directory = tmp_path / "nats" / "context"
    directory.mkdir(parents=True)
    for name, settings in contexts.items():
        text = settings if isinstance(settings, str) else json.dumps(settings)
        (directory / f"{name}.json").write_text(text)
    return {"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/home/me", "STAGE": "prod", "CERTS": "/certs"}


def test_a_context_made_by_the_nats_tool_is_taken_unchanged(tmp_path: Path) -> None:
    environ = environment(tmp_path, prod=WRITTEN_BY_NATS)
    assert load_context("prod", environ) == Context(
        name="prod",
        url="nats://a.example:4222,nats://b.example:4222",
        creds="/home/me/keys/prod/mesh.creds",
        tls_cert="/certs/client.pem",
        tls_key="/certs/client.key",
        tls_ca="/etc/ca.pem",
        tls_first=True,
        inbox_prefix="_INBOX_me",
    )


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"user", "creds", "nkey", "token"}, "user"),
        ({"creds", "nkey", "token"}, "creds"),
        ({"nkey", "token"}, "nkey"),
        ({"token"}, "token"),
    ],
)
def test_one_way_of_authenticating_wins(tmp_path: Path, given: set[str], left: str) -> None:
    """ADR-21: user > creds > nkey > token."""
    environ = environment(tmp_path, it=dict.fromkeys(given, "x"))
    context = load_context("it", environ)
    assert {way for way in ("user", "creds", "nkey", "token") if getattr(context, way)} == {left}


def test_a_password_goes_only_with_its_user(tmp_path: Path) -> None:
    environ = environment(tmp_path, both={"user": "u", "password": "p"}, alone={"creds": "/c", "password": "p"})
    assert load_context("both", environ).password == "p"
    assert load_context("alone", environ).password == ""


def test_secrets_are_not_in_the_repr(tmp_path: Path) -> None:
    context = load_context("it", environment(tmp_path, it={"user": "u", "password": "hush"}))
    assert "hush" not in repr(context)
    assert "hush" not in repr(load_context("t", environment(tmp_path / "2", t={"token": "hush"})))


def test_an_empty_context_is_the_default_server(tmp_path: Path) -> None:
    assert load_context("it", environment(tmp_path, it={})) == Context(name="it", url="nats://localhost:4222")


def test_a_context_file_can_be_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"url": "nats://x:1"}')
    assert load_context(str(path), {}).url == "nats://x:1"


def test_the_selected_context_is_found(tmp_path: Path) -> None:
    environ = environment(tmp_path, prod={}, dev={})
    assert selected_context(environ) is None
    (tmp_path / "nats" / "context.txt").write_text("prod\n")
    assert selected_context(environ) == "prod"
    assert context_names(environ) == ["dev", "prod"]


def test_contexts_are_below_home_without_xdg(tmp_path: Path) -> None:
    directory = tmp_path / ".config" / "nats" / "context"
    directory.mkdir(parents=True)
    (directory / "it.json").write_text('{"url": "nats://home:1"}')
    assert load_context("it", {"HOME": str(tmp_path)}).url == "nats://home:1"


def test_an_unknown_context_is_answered_with_the_nearest(tmp_path: Path) -> None:
    environ = environment(tmp_path, production={})
    with pytest.raises(UnknownContext, match="did you mean production"):
        load_context("prodction", environ)
    with pytest.raises(UnknownContext, match="there are: production"):
        load_context("zzz", environ)


@pytest.mark.parametrize("name", ["../it", "a/../../it", "", "sub/it"])
def test_a_name_does_not_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    environ = environment(tmp_path, it={})
    (tmp_path / "nats" / "it.json").write_text("{}")
    with pytest.raises(UnknownContext):
        load_context(name, environ)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"url": 3}', "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
)
def test_a_broken_context_says_which_file(tmp_path: Path, content: str) -> None:
    with pytest.raises(BadContext, match=r"it\.json"):
        load_context("it", environment(tmp_path, it=content))


@pytest.mark.parametrize("key", ["nsc", "user_jwt", "socks_proxy"])
def test_what_is_not_supported_is_refused_and_not_dropped(tmp_path: Path, key: str) -> None:
    """Left out, we would connect as somebody else or by another way."""
    with pytest.raises(BadContext, match=key):
        load_context("it", environment(tmp_path, it={key: "x"}))
