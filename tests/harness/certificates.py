"""Certificates and tokens of a test control plane."""

from __future__ import annotations

import datetime as dt
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TOKENS = {
    "admin": ("admin", "system:masters"),
    "virt-api": ("system:serviceaccount:kubevirt:kubevirt-apiserver", "system:serviceaccounts"),
    "virt-controller": ("system:serviceaccount:kubevirt:kubevirt-controller", "system:serviceaccounts"),
    "controller-manager": ("system:kube-controller-manager", "system:masters"),
    "player": ("node-player", "system:masters"),
}
"""User and group by token. A token is its own name with `-token`."""


def write_pki(directory: pathlib.Path, address: str = "127.0.0.1") -> None:
    """Write the authority, the certificates and the token file for the programs.

    Args:
        directory: Target directory.
        address: IP address at which the servers are reached, besides the loopback.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("test-ca")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = _builder(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
    certificate = authority.add_extension(usage, True).sign(key, hashes.SHA256())
    _write(directory, "ca", certificate, key)
    hosts: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(one)) for one in {"127.0.0.1", address}]
    hosts += [x509.DNSName(host) for host in ("localhost", "virt-api.kubevirt.svc")]
    for file, common_name, names in (
        ("server", "127.0.0.1", hosts),
        ("front-proxy", "front-proxy", []),
        ("handler", "kubevirt.io:system:client:virt-handler", [x509.DNSName("virt-handler")]),
        ("handler-node", "kubevirt.io:system:node:virt-handler", [x509.DNSName("virt-handler")]),
        ("handler-migration", "kubevirt.io:system:client:migration", []),
        ("handler-vsock", "kubevirt.io:system:client:vsock", []),
    ):
        own = ec.generate_private_key(ec.SECP256R1())
        made = _builder(_name(common_name), name, own.public_key()).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), False)
        _write(directory, file, made.sign(key, hashes.SHA256()), own)
    signer = rsa.generate_private_key(65537, 2048)
    (directory / "sa.key").write_bytes(_private(signer))
    public = signer.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (directory / "sa.pub").write_bytes(public)
    rows = [
        f'{name}-token,{user},{number},"{group},system:authenticated"'
        for number, (name, (user, group)) in enumerate(TOKENS.items())
    ]
    (directory / "tokens.csv").write_text("\n".join(rows) + "\n")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=30))


def _write(directory: pathlib.Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(_private(key))


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
