"""Authorities and serving certificates of the webhook.

The API server trusts the certificates in `caBundle`. A new authority is therefore *announced* there long before it signs
anything, and an old one stays until it has expired. At any moment, every replica serves a certificate that the API server
trusts.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import pathlib
import re
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

__all__ = [
    "Authorities",
    "Authority",
    "CertificateError",
    "Lifetimes",
    "load_serving_certificate",
    "make_authority",
    "merge_bundle",
    "rotate",
]

_CLOCK_SKEW = dt.timedelta(hours=1)
"""Certificates are valid from this long before they are made, for API servers whose clocks are behind."""
# Base64 has no dash. So a begin marker without an end is left at the next dash, and parsing takes linear time.
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----\n?")
_PEM_BYTES = 16 * 1024
_EXTENSIONS = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.SUBJECT_KEY_IDENTIFIER}
"""Extensions of vmnic's authorities. Any other extension could restrict what the authority may sign."""


class CertificateError(Exception):
    """No serving certificate can be made.

    The message gives the reason and the remedy.
    """


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in PEM."""

    certificate: bytes
    key: bytes

    @property
    def made(self) -> dt.datetime:
        """Return when it was made."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_before_utc + _CLOCK_SKEW

    @property
    def expires(self) -> dt.datetime:
        """Return when it expires."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc

    def problem(self, now: dt.datetime) -> str:
        """Return why this authority cannot sign, or an empty string if it can.

        Its content may be anything. Expiry is not checked here.
        """
        try:
            return self._problem(now)
        except Exception as error:  # cryptography raises a dozen exception types for malformed input
            return f"it cannot be read ({error or type(error).__name__})"

    def _problem(self, now: dt.datetime) -> str:
        if len(self.certificate) + len(self.key) > _PEM_BYTES:
            return f"it has more than {_PEM_BYTES} bytes"
        certificate = x509.load_pem_x509_certificate(self.certificate)
        key = serialization.load_pem_private_key(self.key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            return "its key is not an ECDSA key on P-256"
        if certificate.public_key() != key.public_key():
            return "its key is not that of its certificate"
        extensions = {one.oid: one.value for one in certificate.extensions}
        constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
        if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca or not extensions.keys() <= _EXTENSIONS:
            return "its certificate is not that of an authority of vmnic"
        if certificate.not_valid_before_utc > now:
            return f"it is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
        return ""


@dataclass(frozen=True, slots=True)
class Authorities:
    """The authorities in the shared Secret."""

    current: Authority
    """Signs serving certificates."""
    next: Authority | None = None
    """Is announced, and signs nothing yet."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Validity of certificates.

    All periods follow from the one that the administrator chooses.
    """

    serving: dt.timedelta

    @property
    def authority(self) -> dt.timedelta:
        """Return the validity of an authority.

        It is replaced after half of it, so it outlives everything that it signs.
        """
        return 4 * self.serving

    @property
    def announced(self) -> dt.timedelta:
        """Return how long a new authority is trusted before it signs.

        By then, all API servers and replicas have received it.
        """
        return self.serving / 6

    @property
    def check(self) -> dt.timedelta:
        """Return how often each replica checks whether it has to act."""
        return min(dt.timedelta(minutes=1), self.serving / 30)


def rotate(found: Authorities | None, trusted: Sequence[bytes], now: dt.datetime, lifetimes: Lifetimes) -> Authorities:
    """Return the authorities to share from now on.

    They are the same ones, the current one plus a newly announced one, or the announced one as the current one.

    Args:
        found: The authorities shared now.
        trusted: The bundles that the API server trusts now, as PEM, one per webhook.
        now: The time.
        lifetimes: Validity of certificates.
    """
    if found is None:
        return Authorities(make_authority(now, lifetimes))
    is_over = found.current.expires <= now
    if found.next is not None:
        # `all` alone is also true if there is no webhook, and then nothing trusts the authority.
        is_trusted = bool(trusted) and all(found.next.certificate.strip() in bundle for bundle in trusted)
        is_urgent = found.current.expires - now < lifetimes.announced
        is_announced = is_trusted and (is_urgent or now - found.next.made >= lifetimes.announced)
        # Nothing that an expired authority has signed is accepted, so waiting longer would gain nothing.
        return Authorities(found.next) if is_announced or is_over else found
    if is_over:
        return Authorities(make_authority(now, lifetimes))
    if found.current.expires - now < lifetimes.authority / 2:
        return Authorities(found.current, make_authority(now, lifetimes))
    return found


def merge_bundle(present: bytes, shared: Authorities, now: dt.datetime) -> bytes:
    """Return the bundle to trust, in a stable order.

    It contains the shared authorities and all unexpired certificates that were trusted before.
    """
    kept = [pem.strip() for pem in _PEM.findall(present) if _is_valid(pem, now)]
    wanted = [authority.certificate.strip() for authority in (shared.current, shared.next) if authority is not None]
    return b"\n".join(dict.fromkeys([*kept, *wanted])) + b"\n"


def _is_valid(pem: bytes, now: dt.datetime) -> bool:
    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc > now
    except ValueError:
        return False


def make_authority(now: dt.datetime, lifetimes: Lifetimes) -> Authority:
    """Make a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vmnic-webhook-ca")])
    certificate = (
        _builder(name, name, key.public_key(), now, now + lifetimes.authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def load_serving_certificate(
    context: ssl.SSLContext, authority: Authority, hosts: tuple[str, ...], now: dt.datetime, lifetimes: Lifetimes
) -> dt.datetime:
    """Create a serving certificate for these names or IP addresses and load it into the TLS context.

    The server uses it from the next handshake on.

    Returns:
        When it expires.

    Raises:
        CertificateError: the authority has expired or cannot sign.
    """
    if problem := authority.problem(now):
        raise CertificateError(f"the authority cannot sign: {problem}")
    if authority.expires <= now:
        raise CertificateError(f"the authority expired at {authority.expires:%Y-%m-%d %H:%M} UTC")
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vmnic-webhook")])
    # A chain is valid only as long as its issuer.
    until = min(now + lifetimes.serving, authority.expires)
    # All authorities have the same name. The key's identifier tells which one has signed.
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    certificate = (
        _builder(name, issuer.subject, key.public_key(), now, until)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_id, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    # The ssl module loads certificates from files only.
    with tempfile.TemporaryDirectory() as directory:
        chain = pathlib.Path(directory, "tls.pem")
        # The mode is set before the key is in the file.
        chain.touch(mode=0o600)
        chain.write_bytes(_private_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(chain)
    return until


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: dt.datetime, until: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(until)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
