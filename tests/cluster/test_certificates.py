"""Rotation of the webhook's certificates, which live for seconds here.

The API server verifies every one of them.
"""

import base64
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.builders.vm import nic, vm
from tests.harness.api import wait_for
from vmnic.controller.admission.certificates import Authority, Lifetimes, make_authority

REPLICAS = ("controller-1", "controller-2")
SERVING_DAYS = 6 / 86400
"""6 s. Their authority lives for 24 s, and the next one is made after 12 s."""


@pytest.fixture
def short_lived(cluster):
    """Two replicas whose certificates live for seconds."""
    cluster.kill("controller-1")
    cluster.api.delete("Secret", "vmnic-webhook-ca", "vmnic-system")
    for name in REPLICAS:
        cluster.start_controller(name, certificate_days=SERVING_DAYS)
    yield
    for name in REPLICAS:
        cluster.kill(name)
    cluster.api.delete("Secret", "vmnic-webhook-ca", "vmnic-system")
    cluster.start_controller()


def test_certificates_and_authority_rotate_without_a_gap(cluster, short_lived, policy, namespace):
    policy(f"p-{namespace}", namespace, existing="Leave")

    wait_for("both replicas serve", lambda: all("the webhook serves port" in cluster.processes.log(name) for name in REPLICAS))
    wait_for("the webhook is asked", lambda: is_admitted(cluster, namespace))
    served, issuers = set(), set()

    def third_authority_signs():
        assert is_admitted(cluster, namespace), f"not admitted after {len(served)} certificates of {len(issuers)} authorities"
        certificate = served_certificate(cluster.webhook_port)
        served.add(certificate.serial_number)
        issuers.add(certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier)
        return len(issuers) == 3

    wait_for("a third authority signs", third_authority_signs, 90)
    assert len(served) >= 6
    assert all(cluster.processes.running(name) for name in REPLICAS)


def expired():
    """Return an authority that was made 400 days ago."""
    return make_authority(datetime.now(UTC) - timedelta(days=400), Lifetimes(timedelta(days=90)))


def rsa_pair():
    """Return a key pair that another program made."""
    key = rsa.generate_private_key(65537, 2048)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "foreign")]), datetime.now(UTC)
    until = now + timedelta(days=90)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, until)
    pem, encryption = serialization.Encoding.PEM, serialization.NoEncryption()
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(pem)
    return Authority(certificate, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))


@pytest.mark.parametrize("make", [expired, rsa_pair], ids=["expired", "another program's"])
def test_unusable_authority_is_replaced_without_a_restart(cluster, policy, namespace, make):
    policy(f"p-{namespace}", namespace, existing="Leave")
    cluster.kill("controller-1")
    authority = make()
    data = {
        f"tls.{part}": base64.b64encode(value).decode()
        for part, value in (("crt", authority.certificate), ("key", authority.key))
    }
    cluster.api.merge("Secret", "vmnic-webhook-ca", {"data": data}, "vmnic-system")
    cluster.start_controller()
    wait_for("a new VM is patched at admission", lambda: is_admitted(cluster, namespace))
    assert cluster.processes.running("controller-1")
    assert cluster.api.get("Secret", "vmnic-webhook-ca", "vmnic-system")["data"]["tls.crt"] != data["tls.crt"]


def is_admitted(cluster, namespace):
    answer = cluster.api.create(vm("probe", nic(model="e1000e"), namespace=namespace), "?dryRun=All")
    return answer["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"] == "virtio"


def served_certificate(port):
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode())
