"""Rotation of the webhook's certificates, and unusable authorities."""

import asyncio
import base64
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from vmnic.controller.admission import rotation
from vmnic.controller.admission.certificates import (
    Authorities,
    Authority,
    CertificateError,
    Lifetimes,
    make_authority,
    merge_bundle,
    rotate,
)
from vmnic.controller.admission.rotation import Certificates
from vmnic.kube.errors import InvalidError
from vmnic.kube.resources import SECRETS

LIFETIMES = Lifetimes(serving=timedelta(days=90))
START = datetime(2026, 1, 1, tzinfo=UTC)


def days(number):
    return START + timedelta(days=number)


@pytest.fixture(scope="module")
def first():
    return rotate(None, [], START, LIFETIMES)


@pytest.fixture(scope="module")
def announced(first):
    return rotate(first, [], days(181), LIFETIMES)


def test_young_authority_is_kept(first):
    assert rotate(first, [first.current.certificate], days(179), LIFETIMES) is first


def test_authority_is_announced_at_half_life_and_signs_later(first, announced):
    both = merge_bundle(first.current.certificate, announced, days(181))
    assert announced.current == first.current
    assert rotate(announced, [both], days(195), LIFETIMES) is announced
    assert rotate(announced, [both], days(197), LIFETIMES) == Authorities(announced.next)


@pytest.mark.parametrize(
    "trusted", [[], [b""], ["both", b""]], ids=["no webhook", "nothing trusted", "one webhook does not trust it"]
)
def test_authority_that_is_not_trusted_everywhere_signs_nothing(announced, trusted):
    both = merge_bundle(b"", announced, days(181))
    assert rotate(announced, [both if entry == "both" else entry for entry in trusted], days(197), LIFETIMES) is announced


def test_expired_authority_is_replaced_at_once(first, announced):
    assert rotate(first, [], days(361), LIFETIMES).current != first.current
    assert rotate(announced, [], days(361), LIFETIMES) == Authorities(announced.next)


def test_authority_near_its_end_shortens_the_announcement(announced):
    both = merge_bundle(b"", announced, days(350))
    late = rotate(Authorities(announced.current), [], days(350), LIFETIMES)
    assert rotate(late, [merge_bundle(both, late, days(350))], days(351), LIFETIMES) == Authorities(late.next)


def test_bundle_keeps_valid_certificates_and_drops_the_rest(first, announced):
    both = merge_bundle(b"no certificate\n" + first.current.certificate, announced, days(181))
    assert both == first.current.certificate + announced.next.certificate
    assert merge_bundle(both, announced, days(182)) == both
    assert merge_bundle(both, Authorities(announced.next), days(361)) == announced.next.certificate


def foreign(key, *extensions, now=START, last=365):
    """Return an authority that another program made."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "foreign")])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=last)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    made = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return Authority(made.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


CA = x509.BasicConstraints(ca=True, path_length=0)
P256 = ec.generate_private_key(ec.SECP256R1())
CONSTRAINED = x509.NameConstraints([x509.DNSName("elsewhere.example")], None)
GOOD = make_authority(START, LIFETIMES)
BROKEN = {
    "RSA": foreign(rsa.generate_private_key(65537, 2048), CA),
    "Ed25519": foreign(ed25519.Ed25519PrivateKey.generate(), CA),
    "P-384": foreign(ec.generate_private_key(ec.SECP384R1()), CA),
    "no CA flag": foreign(P256),
    "a leaf": foreign(P256, x509.BasicConstraints(ca=False, path_length=None)),
    "for other names only": foreign(P256, CA, CONSTRAINED),
    "the key of another": Authority(GOOD.certificate, make_authority(START, LIFETIMES).key),
    "made by a clock ahead": make_authority(days(730), LIFETIMES),
    "no key": Authority(GOOD.certificate, b"none"),
    "no certificate": Authority(b"none", GOOD.key),
    "nothing": Authority(b"", b""),
    "huge": Authority(GOOD.certificate * 100, GOOD.key),
}
EXPIRED = make_authority(days(-400), LIFETIMES)


class Secrets:
    """Fake API with the Secret and the webhook configuration only."""

    def __init__(self, authority=None, **secret):
        self.secret = secret or None
        if authority is not None:
            self.put(authority)
        self.configuration = {"webhooks": [{"clientConfig": {}}]}

    def put(self, authority, **fields):
        self.secret = {"metadata": {"resourceVersion": "7"}, "type": "kubernetes.io/tls", "data": encoded(authority), **fields}

    async def read(self, resource, name, namespace=""):
        return self.secret if resource is SECRETS else self.configuration

    async def create(self, resource, body, namespace):
        self.secret = body | {"metadata": {"resourceVersion": "1"}}

    async def replace(self, resource, body, name, namespace):
        if (body["type"], body["metadata"]["resourceVersion"]) != (self.secret["type"], "7"):
            raise InvalidError(status=422, reason="Invalid", message="type: field is immutable")
        self.secret = body

    async def patch_json(self, resource, name, operations):
        for operation in operations:
            self.configuration["webhooks"][0]["clientConfig"]["caBundle"] = operation["value"]


def replica(secrets, now=START):
    return Certificates(secrets, secrets, "vmnic-system", ("127.0.0.1",), lifetimes=LIFETIMES, clock=lambda: now)


@pytest.mark.parametrize("authority", [*BROKEN.values(), EXPIRED], ids=[*BROKEN, "expired"])
async def test_leader_replaces_an_authority_that_cannot_sign(authority):
    secrets = Secrets(authority)
    one = replica(secrets)
    with pytest.raises(CertificateError, match="waits for another authority"):
        await one.refresh()
    assert not one.loaded.is_set()
    await one.lead()
    await one.refresh()
    assert one.loaded.is_set()


@pytest.mark.parametrize("data", [None, {}, {"tls.crt": "%"}, {"tls.crt": None, "tls.key": 5}, {"other": "eA=="}], ids=str)
async def test_leader_replaces_a_malformed_secret(data):
    secrets = Secrets(metadata={"resourceVersion": "7"}, type="Opaque", data=data)
    one = replica(secrets)
    await one.lead()
    await one.refresh()
    assert (one.loaded.is_set(), secrets.secret["type"]) == (True, "Opaque")


async def test_secret_that_cannot_be_replaced_yields_a_remedy():
    secrets = Secrets(BROKEN["RSA"])
    secrets.secret["metadata"]["resourceVersion"] = "immutable"
    with pytest.raises(CertificateError, match="kubectl delete secret vmnic-webhook-ca -n vmnic-system"):
        await replica(secrets).lead()


@pytest.mark.parametrize("ahead", [730, -730], ids=["two years ahead", "two years behind"])
async def test_replica_with_a_wrong_clock_keeps_trying_and_recovers(ahead):
    secrets, clock = Secrets(GOOD), [days(ahead)]
    one = Certificates(secrets, secrets, "vmnic-system", ("127.0.0.1",), lifetimes=LIFETIMES, clock=lambda: clock[0])
    with pytest.raises(CertificateError, match=f"here it is {days(ahead):%Y-%m-%d}"):
        await one.refresh()
    clock[0] = days(1)
    await one.refresh()
    assert one.loaded.is_set()


@pytest.mark.parametrize("ahead", [730, -730], ids=["two years ahead", "two years behind"])
async def test_authority_from_a_leader_with_a_wrong_clock_is_replaced(ahead):
    secrets = Secrets(GOOD)
    await replica(secrets, days(ahead)).lead()
    secrets.secret["metadata"]["resourceVersion"] = "7"
    right = replica(secrets, days(1))
    await right.lead()
    await right.refresh()
    assert right.loaded.is_set()


async def test_next_authority_that_cannot_sign_is_not_promoted():
    secrets = Secrets(GOOD)
    bad = encoded(BROKEN["RSA"])
    secrets.secret["data"] |= {"next.crt": bad["tls.crt"], "next.key": bad["tls.key"]}
    await replica(secrets, days(200)).lead()
    assert secrets.secret["data"]["next.crt"] != bad["tls.crt"]
    assert secrets.secret["data"]["tls.crt"] == encoded(GOOD)["tls.crt"]


async def test_certificate_task_survives_failures_and_logs_each_once(caplog, monkeypatch):
    monkeypatch.setattr(rotation, "_RETRY_S", 0.001)
    one, rounds = replica(Secrets(EXPIRED)), []
    failures = [CertificateError("a"), CertificateError("a"), RecursionError("b"), AssertionError("b"), KeyError("c")]

    async def refresh():
        rounds.append(1)
        if len(rounds) <= len(failures):
            raise failures[len(rounds) - 1]

    one.refresh = refresh
    task = asyncio.create_task(one.keep_fresh())
    async with asyncio.timeout(5):
        while len(rounds) <= len(failures):
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert [record.getMessage()[-1] for record in caplog.records] == ["a", "b", "'"]


def test_large_bundle_without_end_marker_is_parsed_quickly():
    """Parsing a hostile bundle takes time in proportion to its length."""
    started = time.thread_time()
    merge_bundle(b"-----BEGIN CERTIFICATE-----\nA" * 35_000, Authorities(GOOD), START)
    assert time.thread_time() - started < 0.05


def encoded(authority):
    return {
        f"tls.{name}": base64.b64encode(part).decode()
        for name, part in (("crt", authority.certificate), ("key", authority.key))
    }
