"""Every kind of login on a real server: good for a node, the Python client and the command line.

A wrong one is answered to all three by one sentence that says what is wrong.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import anyio
import nkeys
import pytest
import trustme

import mesh.client
from mesh.connection import ConnectOptions, connect
from mesh.errors import BadCredentials, MeshError, NotLetIn, NotTrusted
from tests.apps import a_mesh, write_app
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.credentials import write_credentials
from tests.waiting import wait_until

# How each option of a connection is called on the command line.
FLAGS: Final = {
    "tls_ca": "--tlsca", "tls_cert": "--tlscert", "tls_key": "--tlskey", "user": "--user", "password": "--password",
    "token": "--token", "nkey": "--nkey", "creds": "--creds",
}  # fmt: skip
SECRET: Final = "pl4nted-s3cret"


@dataclass(frozen=True, slots=True)
class Wrong:
    """A login that does not work. error, reason: what is said."""

    given: dict[str, str]
    error: type[MeshError]
    reason: str
    host: str = "localhost"


@dataclass(frozen=True, slots=True)
class Login:
    """A kind of login. config: of a server that wants it. right: the options that go with it."""

    config: str
    right: dict[str, str]
    wrong: list[Wrong] = field(default_factory=list)
    scheme: str = "nats"


def _tls(directory: Path, *, verify: bool) -> Login:
    ours, foreign = trustme.CA(), trustme.CA()

    def written(name: str, blob: trustme.Blob) -> str:
        blob.write_to_path(str(directory / name))
        return str(directory / name)

    def certificate(name: str, authority: trustme.CA) -> dict[str, str]:
        made = authority.issue_cert(name)
        return {
            "tls_cert": written(f"{name}.pem", made.cert_chain_pems[0]),
            "tls_key": written(f"{name}.key", made.private_key_pem),
        }

    server, ada, eve = certificate("localhost", ours), certificate("ada@x", ours), certificate("eve@x", foreign)
    ca = {"tls_ca": written("ca.pem", ours.cert_pem)}
    empty = directory / "empty.pem"
    empty.write_text("")
    config = f'cert_file: "{server["tls_cert"]}", key_file: "{server["tls_key"]}", ca_file: "{ca["tls_ca"]}"'
    if verify:
        return Login(f"tls {{ {config}, verify: true }}", ca | ada, [
            Wrong(ca, NotLetIn, "it wants a client certificate: --tlscert and --tlskey"),
            Wrong(ca | eve, NotLetIn, f"when it was shown the certificate {eve['tls_cert']}"),
            Wrong(ca | ada | {"tls_key": eve["tls_key"]}, BadCredentials, "key values mismatch"),
            Wrong(ca | ada | {"tls_cert": str(empty)}, BadCredentials, f"{empty} with"),
        ], "tls")  # fmt: skip
    return Login(f"tls {{ {config} }}", ca, [
        Wrong({}, NotTrusted, "unable to get local issuer certificate"),
        Wrong({"tls_ca": written("foreign.pem", foreign.cert_pem)}, NotTrusted, "name the authority that signed it"),
        Wrong(ca, NotTrusted, "certificate is not valid for '127.0.0.1'", host="127.0.0.1"),
        Wrong({"tls_ca": str(empty)}, BadCredentials, f"{empty} holds no usable certificates"),
    ], "tls")  # fmt: skip


def _nkey(directory: Path) -> Login:
    def seed(name: str, byte: bytes) -> tuple[str, str]:
        made = bytes(nkeys.encode_seed(byte * 32, nkeys.PREFIX_BYTE_USER))
        (directory / name).write_bytes(made)
        return str(directory / name), bytes(nkeys.from_seed(bytearray(made)).public_key).decode()

    (ada, public), (eve, _) = seed("ada.nk", b"a"), seed("eve.nk", b"e")
    cut, bytes_ = directory / "cut.nk", directory / "bytes.nk"
    cut.write_text(Path(ada).read_text()[:-9])
    bytes_.write_bytes(b"\xff\xfe")
    return Login(f"authorization {{ users: [ {{nkey: {public}}} ] }}", {"nkey": ada}, [
        Wrong({"nkey": eve}, NotLetIn, "Authorization Violation"),
        Wrong({"nkey": str(cut)}, BadCredentials, f"{cut} holds no usable credentials"),
        Wrong({"nkey": str(bytes_)}, BadCredentials, "it is no text"),
    ])  # fmt: skip


def _creds(directory: Path) -> Login:
    ada, eve, seed_only = directory / "ada.creds", directory / "eve.creds", directory / "seed.creds"
    config = write_credentials(ada)
    write_credentials(eve)  # of another operator
    seed_only.write_text(ada.read_text()[ada.read_text().index("-----BEGIN USER") :])
    return Login(config, {"creds": str(ada)}, [
        Wrong({"creds": str(eve)}, NotLetIn, "Authorization Violation"),
        Wrong({"creds": str(seed_only)}, BadCredentials, "there is no BEGIN NATS USER JWT in it"),
    ])  # fmt: skip


KINDS: Final[dict[str, Callable[[Path], Login]]] = {
    "the server's certificate": lambda directory: _tls(directory, verify=False),
    "a client's certificate": lambda directory: _tls(directory, verify=True),
    "user and password": lambda _: Login(
        "authorization { users: [ {user: a, password: p} ] }", {"user": "a", "password": "p"},
        [Wrong({"user": "a", "password": SECRET}, NotLetIn, "Authorization Violation"), Wrong({}, NotLetIn, "--user and --password")],
    ),
    "a token": lambda _: Login("authorization { token: t }", {"token": "t"}, [Wrong({"token": SECRET}, NotLetIn, "Authorization Violation")]),
    "the seed of an nkey": _nkey,
    "a credentials file": _creds,
}  # fmt: skip


@pytest.fixture
def plain_levels() -> Iterator[None]:
    """Commands of this process set up logs of their own."""
    root = logging.getLogger()
    before, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(before)
    root.handlers[:] = handlers


@pytest.mark.parametrize("kind", KINDS)
async def test_a_login_is_good_for_all_and_a_wrong_one_is_answered_in_one_sentence(
    kind: str, nats_server: ServerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture, plain_levels: None
) -> None:
    login = KINDS[kind](tmp_path)
    server = nats_server(config=login.config)
    app = write_app(tmp_path / "app", workflows={"greet": "return function(name) return 'hello ' .. name end"})

    def url(host: str = "localhost") -> str:
        return f"{login.scheme}://{host}:{server.port}"

    def flags(given: dict[str, str]) -> list[str]:
        return [part for name, value in given.items() for part in (FLAGS[name], value)]

    right = ConnectOptions(**login.right)  # type: ignore[arg-type]  # all of them are texts
    async with (
        a_mesh(url(), app, options=right) as running,
    ):
        assert await running.run("greet", "Ada") == "hello Ada"
        done = await typed("start", "app:greet", "--input", '"Bob"', "--wait", *flags(login.right), url=url())
        assert (done.status, done.out) == (0, '"hello Bob"\n'), done.err

    for wrong in login.wrong:
        options = ConnectOptions(**wrong.given)  # type: ignore[arg-type]
        with pytest.raises(MeshError) as refused:
            async with mesh.client.connect(url(wrong.host), options=options):
                pass
        said = str(refused.value)
        assert (type(refused.value), wrong.reason in said) == (wrong.error, True), said
        done = await typed("nodes", *flags(wrong.given), url=url(wrong.host))
        assert done.err == f"mesh: {said}\n"
        assert done.status == (1 if wrong.error is BadCredentials else 3)
        assert SECRET not in said
        # A node waits for a server and for people who may let it in, but not for a file to become better.
        caplog.clear()
        for_ever = replace(options, patience_s=math.inf)
        if wrong.error is BadCredentials:
            with anyio.fail_after(20), pytest.raises(BadCredentials):
                async with connect(url(wrong.host), name="node", options=for_ever):
                    pass
            continue
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_connect, url(wrong.host), for_ever)
            await wait_until(lambda said=said: f"{said}; trying again" in caplog.messages)  # type: ignore[misc]
            tasks.cancel_scope.cancel()


async def _connect(url: str, options: ConnectOptions) -> None:
    async with connect(url, name="node", options=options):
        raise AssertionError("it was let in")


async def test_a_node_that_is_up_waits_for_its_credentials_to_be_whole_again(
    nats_server: ServerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever renews them may write the file in two pieces, and the connection may break between them."""
    creds = tmp_path / "ada.creds"
    server = nats_server(config=write_credentials(creds))
    whole = creds.read_text()
    async with connect(server.url, name="node", options=ConnectOptions(creds=str(creds))) as conn:
        creds.write_text(whole[:-90])
        server.restart()
        await wait_until(lambda: any(f"{creds} holds no usable" in message for message in caplog.messages))
        creds.write_text(whole)
        await wait_until(lambda: conn.epoch == 2)
