"""The webhook's certificates: one authority in a Secret, shared by all replicas, and a serving certificate per process.

The API server trusts the authority that the webhook configuration names, so any replica may answer. The authority is made
by whichever replica comes first; a serving certificate lives only in its process's memory and ends with it.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import pathlib
import ssl
import tempfile
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ...kube.client import ApiClient, ConflictError
from ...kube.resources import SECRETS

__all__ = ["AUTHORITY_SECRET", "Authority", "make_authority", "make_server_context", "read_or_create_authority"]

AUTHORITY_SECRET = "vmnic-webhook-ca"  # noqa: S105 - the name of an object, not a secret
_AUTHORITY_DAYS = 3650
_SERVING_DAYS = 365
_CLOCK_SKEW = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, as PEM."""

    certificate: bytes
    key: bytes


async def read_or_create_authority(api: ApiClient, namespace: str) -> Authority:
    """Give the authority that all replicas share; the first one makes it.

    Raises:
        ApiError: the Secret can neither be read nor made.
    """
    found = await api.read(SECRETS, AUTHORITY_SECRET, namespace)
    if found is None:
        try:
            found = await api.create(SECRETS, _secret(make_authority(), namespace), namespace)
        except ConflictError:
            found = await api.read(SECRETS, AUTHORITY_SECRET, namespace)
    data = (found or {})["data"]
    return Authority(base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"]))


def _secret(authority: Authority, namespace: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": AUTHORITY_SECRET, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": base64.b64encode(authority.certificate).decode(),
            "tls.key": base64.b64encode(authority.key).decode(),
        },
    }


def make_authority() -> Authority:
    """Make a new authority, valid for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vmnic-webhook-ca")])
    certificate = (
        _builder(name, name, key.public_key(), _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def make_server_context(authority: Authority, hosts: tuple[str, ...]) -> ssl.SSLContext:
    """Issue a serving certificate for these names or IP addresses and give a TLS server context with it."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vmnic-webhook")])
    certificate = (
        _builder(name, issuer.subject, key.public_key(), _SERVING_DAYS)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # The ssl module takes files only.
    with tempfile.TemporaryDirectory() as directory:
        chain = pathlib.Path(directory, "tls.pem")
        chain.touch(mode=0o600)
        chain.write_bytes(_private_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(chain)
    return context


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
