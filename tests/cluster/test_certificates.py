"""The webhook's certificates, which live for seconds here, are replaced under way; the API server judges every one of them."""

import ssl

import pytest
from cryptography import x509

from tests.builders.vm import nic, vm
from tests.harness.api import wait_for

REPLICAS = ("controller-1", "controller-2")
SERVING_DAYS = 6 / 86400
"""6 s; their authority lives for 24 s, and the next one is made after 12."""


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


def test_certificates_and_their_authority_are_replaced_without_a_gap_or_a_restart(cluster, short_lived, policy, namespace):
    policy(f"p-{namespace}", namespace, existing="Leave")

    def is_admitted():
        answer = cluster.api.create(vm("probe", nic(model="e1000e"), namespace=namespace), "?dryRun=All")
        return answer["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"] == "virtio"

    wait_for("both replicas serve", lambda: all("the webhook serves port" in cluster.processes.log(name) for name in REPLICAS))
    wait_for("the webhook is asked", is_admitted)
    served, issuers = set(), set()

    def third_authority_signs():
        assert is_admitted(), f"not admitted after {len(served)} certificates of {len(issuers)} authorities"
        certificate = served_certificate(cluster.webhook_port)
        served.add(certificate.serial_number)
        issuers.add(certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier)
        return len(issuers) == 3

    wait_for("a third authority signs", third_authority_signs, 90)
    assert len(served) >= 6
    assert all(cluster.processes.running(name) for name in REPLICAS)


def served_certificate(port):
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode())
