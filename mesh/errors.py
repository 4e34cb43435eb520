"""The errors of the platform: one root, one class per cause.

Not here: failures of users' code, which are values (`mesh.failure.Failure`) and become outcomes in a history.
Every message says what happened, to whom, and what to do. `code` is stable and is what scripts may match.
"""

from __future__ import annotations


class MeshError(Exception):
    """Root of every error raised by this project."""

    code = "mesh-error"


class Unreachable(MeshError, ConnectionError):
    """Raised when no NATS server answers at the given address."""

    code = "unreachable"

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"no NATS server at {url} ({reason}); start one with `mesh up APP` or pass --nats URL")


class NotLetIn(Unreachable):
    """Raised when a NATS server is there and refuses who we say we are, or that we say nothing of it."""

    code = "not-let-in"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.args = (
            f"the NATS server at {url} does not let us in ({reason}); say who you are with --user and --password, "
            "--token, --creds, --nkey or a NATS context",
        )


class NotTrusted(Unreachable):
    """Raised when a NATS server is there and its certificate does not prove that it is the one we mean."""

    code = "not-trusted"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.args = (
            f"the certificate of the NATS server at {url} is not trusted ({reason}); name the authority that signed it "
            "with --tlsca, and the server as its certificate does",
        )


class BadCredentials(MeshError, ValueError):
    """Raised when a file that says who we are, or whom we trust, cannot be used: it is damaged, or something else."""

    code = "bad-credentials"

    def __init__(self, path: str, reason: str, holds: str = "credentials") -> None:
        self.path = path
        super().__init__(f"{path} holds no usable {holds} ({reason}); make it again, or name another file")


class Disconnected(MeshError, ConnectionError):
    """Raised when something was asked of a connection that is down at the moment or closed for good."""

    code = "disconnected"


class RequestTimeout(MeshError, TimeoutError):
    """Raised when a request got no answer in time; whether it was carried out is unknown."""

    code = "request-timeout"

    def __init__(self, subject: str, timeout_s: float) -> None:
        self.subject = subject
        self.timeout_s = timeout_s
        super().__init__(f"no answer to {subject} within {timeout_s:g} s")


class NoResponders(MeshError):
    """Raised when nobody at all listens on the subject of a request."""

    code = "no-responders"

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(f"nobody listens on {subject}")


class Conflict(MeshError):
    """Raised when a write expected a last sequence and somebody had written in between."""

    code = "conflict"

    def __init__(self, subject: str, expected: int, actual: str) -> None:
        self.subject = subject
        self.expected = expected
        self.actual = actual
        super().__init__(f"{subject}: expected last sequence {expected}, the server says: {actual}")


class OutcomeUnknown(MeshError, TimeoutError):
    """Raised when a write was sent and no acknowledgement came: it may or may not be stored, now or later."""

    code = "outcome-unknown"

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(f"{subject}: written, but not acknowledged; read back before writing again")


class PayloadTooLarge(MeshError, ValueError):
    """Raised when a message is larger than the server takes."""

    code = "payload-too-large"

    def __init__(self, subject: str, payload_bytes: int, payload_bytes_max: int) -> None:
        self.subject = subject
        self.payload_bytes = payload_bytes
        self.payload_bytes_max = payload_bytes_max
        super().__init__(
            f"{subject}: {payload_bytes} bytes are more than the server's limit of {payload_bytes_max}; "
            "pass a reference instead of the data, or raise max_payload on the server"
        )


class TooLarge(PayloadTooLarge):
    """Raised when a payload is larger than any payload may be, or than there is a place for."""

    code = "payload-too-large"

    def __init__(self, what: str, payload_bytes: int, payload_bytes_max: int, hint: str = "") -> None:
        super().__init__(what, payload_bytes, payload_bytes_max)
        self.args = (
            f"{what} takes {payload_bytes} bytes, at most {payload_bytes_max} are possible; "
            + (hint or "put the data into a store of your own and pass where it is"),
        )


class ServerRefused(MeshError):
    """Raised when the server answers a JetStream request with an error that has no class of its own."""

    code = "server-refused"

    def __init__(self, subject: str, err_code: int, description: str) -> None:
        self.subject = subject
        self.err_code = err_code
        self.description = description
        super().__init__(f"{subject}: the server refused with {err_code}: {description}")


class NotReady(ServerRefused):
    """Raised when the server cannot serve a JetStream request at the moment, as it says itself.

    Its cluster has no leader, it has turned JetStream off because its disk is full, and the like: whatever is asked for
    is not at fault, and will be served once the server is well again.
    """

    code = "server-not-ready"


class NotPermitted(ServerRefused):
    """Raised when the user of this connection has no permission for a subject. It is no passing trouble."""

    code = "not-permitted"

    def __init__(self, subject: str, action: str = "publish", hint: str = "") -> None:
        MeshError.__init__(
            self,
            f"{subject}: permission denied, this user may not {action} there; "
            + (hint or "connect as a user whose role may, or have the server's accounts changed"),
        )
        self.subject = subject
        self.err_code = 0
        self.description = "permission denied"


class NotFound(MeshError, LookupError):
    """Raised when a stream, bucket, message or workflow that was named does not exist."""

    code = "not-found"


class Undecodable(MeshError, ValueError):
    """Raised when bytes cannot be read as what they should be."""

    code = "undecodable"


class Unreadable(MeshError):
    """Raised when the server has something and cannot read it, as its files are damaged."""

    code = "unreadable"


class InvalidName(MeshError, ValueError):
    """Raised when an id, topic or queue name cannot stand in a subject."""

    code = "invalid-name"


class StoreInUse(MeshError):
    """Raised when a second server is about to be started on a store directory that has one."""

    code = "store-in-use"


class ServerFailed(MeshError):
    """Raised when the embedded server could not be started or kept alive."""

    code = "server-failed"


# What a later try may not meet any more: the connection is down, the server is silent, or a cluster has no leader at
# the moment, which looks like a stream that is not there.
TEMPORARY = (Disconnected, RequestTimeout, OutcomeUnknown, NoResponders, NotFound, ServerRefused)


class CannotLookBack(MeshError):
    """Raised when nobody can say how a workflow was at an event."""

    code = "cannot-look-back"
