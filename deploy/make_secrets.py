"""Make the secrets of a mesh for a trial: a certificate authority, certificates, passwords and nkeys.

    python -m deploy.make_secrets deploy/nats/secrets --host n1.example.com --host n2.example.com

Writes, readable by their owner only:

    users.conf              for the servers: passwords as bcrypt hashes, nkeys as public keys
    ca.pem, ca.key          the authority; keep ca.key off the servers
    server.pem, server.key  for all servers, for the hosts that are named, localhost and 127.0.0.1
    <role>.pem, <role>.key  a client certificate for each role, where servers verify them
    <role>.nk               an nkey seed, for --nkey
    <role>.env              NATS_USER, NATS_PASSWORD, NATS_INBOX_PREFIX ... for nodes and the command line
    contexts/<role>.json    NATS contexts, for `nats` and `mesh --context`

In earnest: certificates from your own authority, passwords from where your others are. An existing directory is left
alone.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

ROLES: Final = ("node", "functions", "client", "observer", "operator")
# Roles whose replies come on a prefix of their own: no other role may listen there.
_WITH_PREFIX: Final = frozenset({"node", "functions", "client", "observer"})
_OF_OTHER_ACCOUNTS: Final = frozenset({"client", "observer"})
JS_API_PREFIX: Final = "JS.MESH.API"  # as in make_accounts; this script needs nothing but itself
DAYS: Final = 365
BCRYPT_ROUNDS: Final = 10


class SecretsExist(Exception):
    """Raised when the directory has secrets already; new ones would lock everybody out who has the old."""


def make_secrets(
    directory: Path, *, hosts: Sequence[str] = (), url: str = "tls://localhost:4222", rounds: int = BCRYPT_ROUNDS
) -> None:
    """Make all files in a directory that is new or empty. Raises SecretsExist.

    hosts: names and addresses of the servers. url: put into the contexts and environment files.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(path.name != ".gitignore" for path in directory.iterdir()):
        raise SecretsExist(f"{directory} is not empty; give a new directory, or delete this one to lock out all users")
    passwords = {role: secrets.token_urlsafe(24) for role in ("admin", *ROLES)}
    seeds, public = _nkeys()
    _write(directory / "users.conf", _users_conf(passwords, public, rounds))
    _certificates(directory, hosts)
    ca = (directory / "ca.pem").resolve()
    for role in ROLES:
        _write(directory / f"{role}.nk", seeds[role] + "\n")
        prefix = f"_INBOX_{role}" if role in _WITH_PREFIX else ""
        variables = {
            "NATS_URL": url, "NATS_USER": role, "NATS_PASSWORD": passwords[role], "NATS_CA": str(ca),
            "NATS_INBOX_PREFIX": prefix, "NATS_JS_API_PREFIX": JS_API_PREFIX if role in _OF_OTHER_ACCOUNTS else "",
        }  # fmt: skip
        _write(directory / f"{role}.env", "".join(f"{name}={value}\n" for name, value in variables.items() if value))
        context = {
            "description": f"mesh as {role}", "url": url, "user": role, "password": passwords[role], "ca": str(ca),
            "inbox_prefix": prefix, "jetstream_api_prefix": JS_API_PREFIX if role in _OF_OTHER_ACCOUNTS else "",
        }  # fmt: skip
        _write(directory / "contexts" / f"{role}.json", json.dumps(context, indent=2) + "\n")
    _write(
        directory / "admin.env", f"NATS_URL={url}\nNATS_USER=admin\nNATS_PASSWORD={passwords['admin']}\nNATS_CA={ca}\n"
    )


def _nkeys() -> tuple[dict[str, str], dict[str, str]]:
    """Seeds and public keys of the roles."""
    import nkeys

    seeds, public = {}, {}
    for role in ROLES:
        seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
        seeds[role] = seed.decode()
        public[role] = nkeys.from_seed(bytearray(seed)).public_key.decode()
    return seeds, public


def _users_conf(passwords: dict[str, str], public: dict[str, str], rounds: int) -> str:
    import bcrypt

    lines = ["# Made by deploy/make_secrets.py. The passwords themselves are in the .env files.\n"]
    for role, password in passwords.items():
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds, prefix=b"2a")).decode()
        lines.append(f'{role.upper()}_PASSWORD: "{hashed}"\n')
    lines += [f'{role.upper()}_NKEY: "{key}"\n' for role, key in public.items()]
    return "".join(lines)


def _certificates(directory: Path, hosts: Sequence[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(UTC)

    def key_of(name: str) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(directory / f"{name}.key", pem.decode())
        return key

    def name_of(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name_of(subject))
            .issuer_name(name_of("mesh trial CA"))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=DAYS))
        )

    authority = key_of("ca")
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())

    def save(name: str, certificate: x509.Certificate) -> None:
        _write(directory / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM).decode())

    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    save(
        "ca",
        builder("mesh trial CA", authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256()),
    )
    names = [_general_name(host) for host in dict.fromkeys((*hosts, "localhost", "127.0.0.1"))]
    for name in ("server", *ROLES):
        key = key_of(name)
        # A server is also the client of another one's route.
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if name == "server" else [])]
        made = (
            builder(f"mesh {name}", key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(authority_id, critical=False)
        )
        if name == "server":
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        save(name, made.sign(authority, hashes.SHA256()))


def _general_name(host: str):  # type: ignore[no-untyped-def]  # cryptography is imported where it is used
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def main() -> None:
    """Make the secrets in the directory on the command line."""
    parser = argparse.ArgumentParser(description="Make certificates, passwords and nkeys for a trial.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--host", action="append", default=[], help="name or address of a server; repeatable")
    parser.add_argument("--url", default="tls://localhost:4222", help="address of the servers, for clients")
    given = parser.parse_args()
    try:
        make_secrets(given.directory, hosts=given.host, url=given.url)
    except SecretsExist as error:
        sys.exit(str(error))
    print(f"made in {given.directory}: users.conf and server.* for the servers, the rest for who connects")


if __name__ == "__main__":
    main()
