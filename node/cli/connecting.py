"""Which server a command talks to, and as whom: the flags and variables of the `nats` tool, and its contexts.

Flag wins over variable, variable over the named context, that over the selected one, and the last is
nats://localhost:4222 without a password. A way of authenticating that is given by flag or variable replaces the
context's as a whole.
"""

from __future__ import annotations

import functools
import math
import os
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import click
from click.core import ParameterSource

from mesh.context import BadContext, Context, load_context, selected_context
from mesh.errors import RequestTimeout
from mesh.redaction import without_secrets
from node.cli.values import DURATION

if TYPE_CHECKING:
    from mesh.client import Client
    from mesh.envelopes import PayloadCodec
    from mesh.handshake import ConnectOptions
    from node.api.verbs import Asker

TIMEOUT_DEFAULT: Final = "5s"
ANSWER_TIMEOUT_S: Final = 5.0
_AUTH: Final = ("user", "password", "token", "creds", "nkey", "jwt", "seed")
# The parameters that `connection_options` adds.
PARAMETERS: Final = (
    "url", "tls_cert", "tls_key", "tls_ca", "tls_first", "js_domain", "js_api_prefix", "inbox_prefix", "context",
    "no_context", "timeout", "keys", "max_payload", *_AUTH,
)  # fmt: skip

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect and how, put together from flags, variables and a context."""

    context: Context
    timeout_s: float
    # What has to follow a proposed command so that it goes to the same server: the flags of this one, quoted.
    hint: str = ""
    # Whether flags, variables or a context say anything at all of where to connect or as whom.
    is_said: bool = True
    keys: str = ""  # file of the keys that payloads are encrypted with
    max_payload: int | None = None  # MiB; None = as by default

    @property
    def url(self) -> str:
        """The address or addresses."""
        return self.context.url

    def options(self, *, patience_s: float = 0.0) -> ConnectOptions:
        """The connection options. patience_s: as there. Raises BadKeys."""
        from mesh.handshake import PAYLOAD_BYTES_MAX, ConnectOptions

        c = self.context
        return ConnectOptions(
            user=c.user or None,
            password=c.password or None,
            token=c.token or None,
            creds=c.creds or None,
            nkey=c.nkey or None,
            jwt=c.user_jwt or None,
            seed=c.user_seed or None,
            tls_ca=c.tls_ca or None,
            tls_cert=c.tls_cert or None,
            tls_key=c.tls_key or None,
            tls_first=c.tls_first,
            inbox_prefix=c.inbox_prefix or "_INBOX",
            js_api_prefix=c.jetstream_api_prefix or "$JS.API",
            js_domain=c.jetstream_domain,
            patience_s=patience_s,
            connect_timeout_s=min(2.0, self.timeout_s),
            codec=self.codec(),
            payload_bytes_max=self.max_payload * 1024 * 1024 if self.max_payload else PAYLOAD_BYTES_MAX,
        )

    def codec(self) -> PayloadCodec | None:
        """What encrypts and opens payloads, None without keys. Raises BadKeys."""
        if not self.keys:
            return None
        from mesh.key_files import KeyFile

        return KeyFile(self.keys)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Connect as a client. Raises Unreachable, RequestTimeout."""
        import mesh.client

        async with mesh.client.connect(self.url, name="mesh command", options=self.options()) as client:
            yield client

    def asker(self, client: Client) -> Asker:
        """Who asks for a verb of the control API here."""
        from node.api.verbs import Asker

        return Asker(client, self.url, self.hint)

    def deadline(self, what: str) -> AbstractContextManager[None]:
        """Limit a block by `--timeout`. Raises RequestTimeout."""
        return _deadline(what, self.timeout_s)

    def answer_deadline(self, what: str) -> AbstractContextManager[None]:
        """Limit a block that only asks, in a command that may wait for longer."""
        return _deadline(what, min(self.timeout_s, ANSWER_TIMEOUT_S))


@contextmanager
def _deadline(what: str, timeout_s: float) -> Iterator[None]:
    import anyio

    with anyio.move_on_after(timeout_s) as scope:
        yield
    if scope.cancelled_caught:
        raise RequestTimeout(what, timeout_s)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command's coroutine; Ctrl-C ends it as KeyboardInterrupt."""
    import anyio

    anyio.run(main)


@overload
def connection_options(command: Command) -> Command: ...
@overload
def connection_options(*, timeout: str | None) -> Callable[[Command], Command]: ...
def connection_options(command: Any = None, *, timeout: str | None = TIMEOUT_DEFAULT) -> Any:
    """Give a command the options that say where the mesh is; it gets them as `server`, a `Server`.

    timeout: default of `--timeout`; None = for ever, for commands that wait for a workflow.
    """
    if command is None:
        return functools.partial(_with_options, timeout=timeout)
    return _with_options(command, timeout=timeout)


def _with_options(command: Callable[..., Any], *, timeout: str | None) -> Callable[..., Any]:
    @functools.wraps(command)
    def with_server(*args: Any, **given: Any) -> Any:
        server = server_of(**{name: given.pop(name) for name in PARAMETERS})
        return command(*args, server=replace(server, hint=_typed_flags(click.get_current_context())), **given)

    waits = timeout is None
    options = (
        click.option("-s", "--server", "--nats", "url", envvar="NATS_URL", metavar="URL",
                     help="Address of the NATS server, or several split by commas."),
        click.option("--context", envvar="NATS_CONTEXT", metavar="NAME", help="NATS context; see `nats context ls`."),
        click.option("--no-context", is_flag=True, help="Use no NATS context, not even the selected one."),
        click.option("--user", envvar="NATS_USER", metavar="NAME", help="User name; without a password, a token."),
        click.option("--password", envvar="NATS_PASSWORD", metavar="TEXT", help="Password."),
        click.option("--token", envvar="NATS_TOKEN", metavar="TEXT", help="Token."),
        click.option("--creds", envvar="NATS_CREDS", metavar="FILE", help="Credentials file (JWT and seed)."),
        click.option("--nkey", envvar="NATS_NKEY", metavar="FILE", help="File with an nkey seed."),
        click.option("--jwt", envvar="NATS_JWT", metavar="TEXT", help="JWT of the user; goes with --seed."),
        click.option("--seed", envvar="NATS_SEED", metavar="TEXT", help="Seed of the user's key."),
        click.option("--tlscert", "tls_cert", envvar="NATS_CERT", metavar="FILE", help="Client certificate."),
        click.option("--tlskey", "tls_key", envvar="NATS_KEY", metavar="FILE", help="Key of the client certificate."),
        click.option("--tlsca", "tls_ca", envvar="NATS_CA", metavar="FILE", help="Authorities to trust."),
        click.option("--tlsfirst/--no-tlsfirst", "tls_first", default=None,
                     help="Whether the server expects TLS before it greets."),
        click.option("--js-domain", metavar="NAME", help="JetStream domain to use, beyond a leaf node."),
        click.option("--inbox-prefix", envvar="NATS_INBOX_PREFIX", metavar="SUBJECT", help="Prefix of reply subjects."),
        click.option("--js-api-prefix", envvar="NATS_JS_API_PREFIX", metavar="SUBJECT",
                     help="Prefix of the JetStream API, where it is another account's."),
        click.option("--keys", envvar="MESH_KEYS", metavar="FILE",
                     help="Keys that payloads are encrypted with; `mesh keys new FILE` makes one."),
        click.option("--max-payload", envvar="MESH_MAX_PAYLOAD", type=click.IntRange(1, 1024), metavar="MIB",
                     help="Largest payload of a workflow, in MiB; 64 when not given."),
        click.option("--timeout", envvar=None if waits else "NATS_TIMEOUT", type=DURATION, default=timeout,
                     show_default=not waits, metavar="DURATION",
                     help="How long to wait, such as 30s." if waits else "How long the mesh may take to answer."),
    )  # fmt: skip
    decorated: Any = with_server
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click's decorators are typed for one signature at a time


def _typed_flags(ctx: click.Context) -> str:
    """The flags of this command line that say where the mesh is; passwords are not repeated."""
    flags = {
        "url": "-s", "context": "--context", "creds": "--creds", "nkey": "--nkey", "tls_ca": "--tlsca",
        "js_domain": "--js-domain", "js_api_prefix": "--js-api-prefix", "inbox_prefix": "--inbox-prefix",
        "keys": "--keys",
    }  # fmt: skip
    return "".join(
        f" {flag} {shlex.quote(_fit_to_be_shown(name, str(ctx.params[name])))}"
        for name, flag in flags.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    )


def _fit_to_be_shown(name: str, value: str) -> str:
    return (
        ",".join(without_secrets(address) for address in value.split(",")) if name == "url" and "@" in value else value
    )


def server_of_line(given: Mapping[str, Any]) -> Server:
    """The server of a command line that is still being typed: of what is there already. Raises as `server_of`."""
    known: dict[str, Any] = {name: given.get(name) for name in PARAMETERS}
    return server_of(**known | {"no_context": bool(given.get("no_context"))})


def server_of(
    *,
    url: str | None,
    context: str | None,
    no_context: bool,
    timeout: float | None,
    user: str | None,
    password: str | None,
    token: str | None = None,
    creds: str | None,
    nkey: str | None,
    jwt: str | None = None,
    seed: str | None = None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_ca: str | None,
    inbox_prefix: str | None,
    tls_first: bool | None = None,
    js_domain: str | None = None,
    js_api_prefix: str | None = None,
    keys: str | None = None,
    max_payload: int | None = None,
) -> Server:
    """Put flags, variables and a context together. Raises UnknownContext, BadContext."""
    if context and no_context:
        raise click.UsageError("--context and --no-context exclude each other")
    if js_domain and js_api_prefix:
        raise click.UsageError("--js-domain and --js-api-prefix exclude each other")
    base = Context() if no_context else _chosen(context)
    if os.environ.get("NATS_SOCKS_PROXY"):
        # Passed over, we would go to the server by another way than the person thinks.
        raise BadContext("NATS_SOCKS_PROXY is set, and proxies are not supported; unset it to connect directly")
    if bool(jwt) is not bool(seed):
        raise click.UsageError("--jwt and --seed go together")
    own_way = any((user, creds, nkey, jwt, token))
    token = user if user and not password else token if not (user or creds or nkey or jwt) else None
    merged = Context(
        name=base.name,
        url=url or base.url,
        user=(user or "" if not token else "") if own_way else base.user,
        password=(password or "") if own_way or password else base.password,
        token=(token or "") if own_way else base.token,
        creds=(creds or "" if not user else "") if own_way else base.creds,
        nkey=(nkey or "" if not (user or creds) else "") if own_way else base.nkey,
        user_jwt=(jwt or "" if not (user or creds or nkey) else "") if own_way else base.user_jwt,
        user_seed=(seed or "" if not (user or creds or nkey) else "") if own_way else base.user_seed,
        tls_cert=tls_cert or base.tls_cert,
        tls_key=tls_key or base.tls_key,
        tls_ca=tls_ca or base.tls_ca,
        tls_first=base.tls_first if tls_first is None else tls_first,
        inbox_prefix=inbox_prefix or base.inbox_prefix,
        jetstream_domain=js_domain or ("" if js_api_prefix else base.jetstream_domain),
        jetstream_api_prefix=(js_api_prefix or ("" if js_domain else base.jetstream_api_prefix)).rstrip("."),
    )
    is_said = bool(url or base.name or own_way or password)
    return Server(
        merged, math.inf if timeout is None else timeout, is_said=is_said, keys=keys or "", max_payload=max_payload
    )


def _chosen(named: str | None) -> Context:
    name = named or selected_context(os.environ)
    return load_context(name, os.environ) if name else Context()
