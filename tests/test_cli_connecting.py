"""How the command line finds its server and who it is there: the flags and variables of the `nats` tool."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import nkeys
import pytest
import trustme

from node.cli import main
from tests.apps import a_mesh, write_app
from tests.cluster import Finished, mesh_command
from tests.conftest import ServerFactory
from tests.ports import free_ports
from tests.servers import ServerProcess
from tests.waiting import wait_until

Command = Callable[..., Finished]

# What a command says of a server that lets it in and that no node has ever joined.
LET_IN = "no node has ever joined the mesh"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command in this process: (*arguments, **variables)."""

    def run(*arguments: str, **environ: str) -> Finished:
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CONFIG_HOME", str(tmp_path))
            for name, value in environ.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        out, err = capsys.readouterr()
        return Finished(int(ended.value.code or 0), out, err)

    return run


def is_let_in(done: Finished) -> bool:
    """Whether a command got into the server; else it must say that it was not let in."""
    if LET_IN in done.err:
        return True
    assert done.status == 3 or "may not subscribe" in done.err, done
    assert re.search("no NATS server at|does not let us in|permission denied|no answer to|server hung up", done.err), (
        done
    )
    return False


def test_a_token_is_given_by_flag_variable_or_as_the_user(nats_server: ServerFactory, command: Command) -> None:
    url = nats_server(config="authorization { token: sesame }").url
    assert not is_let_in(command("nodes", "-s", url))
    assert is_let_in(command("nodes", "-s", url, "--token", "sesame"))
    assert is_let_in(command("nodes", NATS_URL=url, NATS_TOKEN="sesame"))
    assert is_let_in(command("nodes", NATS_URL=url, NATS_USER="sesame"))
    assert not is_let_in(command("nodes", "-s", url, "--token", "wrong", NATS_TOKEN="sesame"))


def test_user_and_password_and_an_nkey(nats_server: ServerFactory, command: Command, tmp_path: Path) -> None:
    seed = nkeys.encode_seed(b"s" * 32, nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(seed).public_key.decode()
    (tmp_path / "ada.nk").write_bytes(bytes(seed))
    url = nats_server(config=f"authorization {{ users: [ {{user: a, password: p}}, {{nkey: {public}}} ] }}").url
    assert is_let_in(command("nodes", "-s", url, "--user", "a", "--password", "p"))
    assert is_let_in(command("nodes", NATS_URL=url, NATS_USER="a", NATS_PASSWORD="p"))
    assert not is_let_in(command("nodes", "-s", url, "--user", "a", "--password", "q"))
    assert is_let_in(command("nodes", "-s", url, "--nkey", str(tmp_path / "ada.nk")))
    assert is_let_in(command("nodes", NATS_URL=url, NATS_NKEY=str(tmp_path / "ada.nk")))
    missing = command("nodes", "-s", url, "--nkey", "/nowhere.nk")
    assert (missing.status, missing.err) == (
        1,
        "mesh: there is no file /nowhere.nk, which the connection's options name\n",
    )


def a_key(kind: int, number: int) -> tuple[str, nkeys.KeyPair, str]:
    """The seed of a key, the key, and its public half."""
    seed = nkeys.encode_seed(bytes([number]) * 32, kind)
    pair = nkeys.from_seed(bytearray(seed))
    return bytes(seed).decode(), pair, bytes(pair.public_key).decode()


def signed(issuer: nkeys.KeyPair, subject: str, kind: str, **claims: object) -> str:
    """A JWT as NATS has them: who `subject` is, said by whoever has the key of `issuer`."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    said = {
        "jti": subject, "iat": 1, "iss": bytes(issuer.public_key).decode(), "name": kind, "sub": subject,
        "nats": {"type": kind, "version": 2, **claims},
    }  # fmt: skip
    head = part(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    text = f"{head}.{part(json.dumps(said).encode())}"
    return f"{text}.{part(issuer.sign(text.encode()))}"


def test_a_user_is_named_by_a_jwt_and_the_seed_of_its_key(
    nats_server: ServerFactory, command: Command, tmp_path: Path
) -> None:
    _, operator, operator_id = a_key(nkeys.PREFIX_BYTE_OPERATOR, 1)
    _, account, account_id = a_key(nkeys.PREFIX_BYTE_ACCOUNT, 2)
    _, _, system_id = a_key(nkeys.PREFIX_BYTE_ACCOUNT, 3)
    seed, _, user_id = a_key(nkeys.PREFIX_BYTE_USER, 4)
    everything = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    stored = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    limits = {"limits": everything | stored | {"wildcards": True}}
    preload = {
        account_id: signed(operator, account_id, "account", **limits),
        system_id: signed(operator, system_id, "account", limits=everything | {"wildcards": True}),
    }
    accounts = "\n".join(f"{name}: {jwt}" for name, jwt in preload.items())
    server = nats_server(
        config=f"operator: {signed(operator, operator_id, 'operator')}\nsystem_account: {system_id}\n"
        f"resolver: MEMORY\nresolver_preload {{\n{accounts}\n}}"
    )
    jwt = signed(account, user_id, "user", subs=-1, data=-1, payload=-1)
    assert is_let_in(command("nodes", "-s", server.url, "--jwt", jwt, "--seed", seed))
    assert is_let_in(command("nodes", NATS_URL=server.url, NATS_JWT=jwt, NATS_SEED=seed))
    assert not is_let_in(command("nodes", "-s", server.url))
    alone = command("nodes", "-s", server.url, "--jwt", jwt)
    assert (alone.status, "--jwt and --seed go together" in alone.err) == (2, True)
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "ada.json").write_text(json.dumps({"url": server.url, "user_jwt": jwt, "user_seed": seed}))
    assert is_let_in(command("nodes", "--context", "ada"))
    credentials = f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n"
    credentials += f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    (tmp_path / "ada.creds").write_text(credentials)
    assert is_let_in(command("nodes", NATS_URL=server.url, NATS_CREDS=str(tmp_path / "ada.creds")))


def tls_files(directory: Path) -> Mapping[str, str]:
    """An authority, a server's and a client's certificate, as files."""
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("ada@example.org")
    names = {name: str(directory / f"{name}.pem") for name in ("ca", "cert", "key", "client_cert", "client_key")}
    authority.cert_pem.write_to_path(names["ca"])
    server.cert_chain_pems[0].write_to_path(names["cert"])
    server.private_key_pem.write_to_path(names["key"])
    client.cert_chain_pems[0].write_to_path(names["client_cert"])
    client.private_key_pem.write_to_path(names["client_key"])
    return names


def test_tls_with_a_client_s_certificate_and_before_the_greeting(
    nats_server: ServerFactory, command: Command, tmp_path: Path
) -> None:
    files = tls_files(tmp_path)
    tls = f'cert_file: "{files["cert"]}", key_file: "{files["key"]}", ca_file: "{files["ca"]}"'
    mutual = nats_server(config=f"tls {{ {tls}, verify: true }}").url
    ours = ("--tlscert", files["client_cert"], "--tlskey", files["client_key"])
    assert is_let_in(command("nodes", "-s", mutual, "--tlsca", files["ca"], *ours))
    variables = {"NATS_CERT": files["client_cert"], "NATS_KEY": files["client_key"], "NATS_CA": files["ca"]}
    assert is_let_in(command("nodes", NATS_URL=mutual, **variables))
    assert not is_let_in(command("nodes", "-s", mutual, "--tlsca", files["ca"]))
    first = nats_server(config=f"tls {{ {tls}, handshake_first: true }}").url
    assert is_let_in(command("nodes", "-s", first, "--tlsca", files["ca"], "--tlsfirst"))
    assert not is_let_in(command("nodes", "-s", first, "--tlsca", files["ca"], "--timeout", "500ms"))


def test_replies_come_where_a_user_may_listen(nats_server: ServerFactory, command: Command) -> None:
    """A user may be kept from the inboxes of others: `--inbox-prefix` names its own."""
    user = '{user: a, password: p, permissions: {subscribe: "_MINE.>"}}'
    url = nats_server(config=f"authorization {{ users: [ {user} ] }}").url
    whom = ("-s", url, "--user", "a", "--password", "p")
    assert is_let_in(command("nodes", *whom, "--inbox-prefix", "_MINE"))
    assert is_let_in(command("nodes", *whom, NATS_INBOX_PREFIX="_MINE"))
    assert not is_let_in(command("nodes", *whom, "--timeout", "500ms"))


def test_settings_that_exclude_each_other_are_wrong_usage(command: Command) -> None:
    for arguments in (("--context", "a", "--no-context"), ("--js-domain", "a", "--js-api-prefix", "b")):
        done = command("nodes", *arguments)
        assert (done.status, "exclude each other" in done.err) == (2, True)
    proxy = command("nodes", NATS_SOCKS_PROXY="socks5://127.0.0.1:1")
    assert (proxy.status, "proxies are not supported; unset it" in proxy.err) == (1, True)
    wrong = command("nodes", "--timeout", "soon")
    assert (wrong.status, "write for example 500ms, 30s" in wrong.err) == (2, True)


def log_of(server: ServerProcess) -> str:
    return (server.directory / "server.log").read_text()


async def test_a_mesh_in_another_domain_is_used_through_a_leaf_node(nats_server: ServerFactory, tmp_path: Path) -> None:
    """`--js-domain`, and a context that names one: for commands and for nodes."""
    app = write_app(tmp_path / "app", workflows={"greet": "return function(name) return 'hello ' .. name end"})
    (leaves,) = free_ports(1)  # it has to be known beforehand
    hub = nats_server(domain="hub", config=f"server_name: hub\nleafnodes {{ listen: 127.0.0.1:{leaves} }}")
    leaf = nats_server(
        domain="leaf",
        config=f'server_name: leaf\nleafnodes {{ remotes: [ {{ url: "nats-leaf://127.0.0.1:{leaves}" }} ] }}',
    )
    await wait_until(lambda: "Leafnode connection created" in log_of(hub))
    async with a_mesh(hub.url, app):
        done = await mesh_command("nodes", "--json", "--js-domain", "hub", url=leaf.url)
        assert [record["state"] for record in done.records()] == ["up"]
        started = await mesh_command(
            "start", "app:greet", "--input", '"Ada"', "--wait", "--js-domain", "hub", url=leaf.url
        )
        assert (started.status, started.out) == (0, '"hello Ada"\n'), started.err
        here = await mesh_command("nodes", url=leaf.url)
        assert LET_IN in here.err
