"""The webhook answers within a second, never with a 500, and reveals nothing to strangers."""

import asyncio
import contextlib
import io
import json
import ssl
import time

import aiohttp
import pytest

from tests.builders.vm import policy
from tests.harness.certificates import write_pki
from tests.harness.processes import free_port
from vmnic.controller.admission import server as module
from vmnic.controller.admission.client_ca import ClientAuthority, ClientAuthorityError
from vmnic.controller.admission.connections import ConnectionSweeper
from vmnic.controller.admission.cpu_limit import CpuLimit
from vmnic.controller.admission.reviews import Answer, Reviews, allow
from vmnic.controller.admission.server import Webhook
from vmnic.kube.loops import run_in_thread
from vmnic.kube.set_aside import SetAside, SetAsideReason
from vmnic.kube.time_budget import OverBudgetError, Subject

WEB = Subject("VirtualMachine", "tenants/web")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    write_pki(directory)
    return directory


class Scripted:
    """Reviews that run the test's own function."""

    def __init__(self):
        self.seen = []
        self.act = lambda: None
        self.cpu_s = 0.0
        self.waiting = 0

    async def answer(self, webhook, uid, subject, raw):
        self.seen.append((webhook, subject))
        await asyncio.sleep(0)
        self.act()
        return Answer(allow(uid), self.cpu_s)


class Rig:
    def __init__(self, pki, port, outcomes):
        self.reviews = outcomes.reviews
        self.outcomes = outcomes
        self._url = f"https://127.0.0.1:{port}"
        self._pki = pki

    def client(self, certificate=False):
        context = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        if certificate:
            context.load_cert_chain(self._pki / "front-proxy.crt", self._pki / "front-proxy.key")
        return aiohttp.ClientSession(self._url, connector=aiohttp.TCPConnector(ssl=context))

    async def send(self, body=None, path="/mutate-virtualmachine", **options):
        if body is None:
            body = json.dumps({"request": {"uid": "u", "namespace": "tenants", "name": "web", "object": {}}})
        async with self.client(**options) as client, client.post(path, data=body) as answer:
            text = await answer.text()
            return answer.status, json.loads(text)["response"] if answer.status == 200 else text


class Outcomes(list):
    """Outcomes that the server reports of its requests."""

    def __init__(self):
        self.reviews = Scripted()
        self.seconds = []

    def __call__(self, webhook, outcome, seconds):
        self.append(outcome)
        self.seconds.append(seconds)


@contextlib.asynccontextmanager
async def serving(pki, client_ca=None):
    """Run a webhook in a thread of its own, as the controller does.

    The test is the main loop.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.crt", pki / "server.key")
    if client_ca is not None:
        ClientAuthority(client_ca, context)
    outcomes, main, ready = Outcomes(), asyncio.get_running_loop(), asyncio.Event()
    port = free_port()

    async def serve():
        async with Webhook(outcomes.reviews, main, context, outcomes).serve(port):
            main.call_soon_threadsafe(ready.set)
            await asyncio.Event().wait()

    task = asyncio.create_task(run_in_thread(serve, "webhook"))
    await ready.wait()
    try:
        yield Rig(pki, port, outcomes)
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def rig(pki):
    async with serving(pki) as made:
        yield made


async def test_main_loop_answers_the_review(rig):
    assert await rig.send() == (200, {"uid": "u", "allowed": True})
    assert (rig.reviews.seen, rig.outcomes) == ([("virtualmachine", WEB)], ["unchanged"])


async def test_answer_comes_within_a_second_while_main_loop_is_busy(rig):
    begun = time.monotonic()
    answer = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(rig.send())))
    await asyncio.sleep(0)
    while not rig.outcomes and time.monotonic() - begun < 10:
        pass
    status, response = await answer
    assert (status, response["allowed"], "patch" in response, rig.outcomes) == (200, True, False, ["late"])
    assert "in time" in response["warnings"][0]
    assert max(rig.outcomes.seconds) < 1


def over_budget():
    raise OverBudgetError("slow")


def fail(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (over_budget, "late"), (fail(RecursionError("secret")), "failed"), (fail(MemoryError("secret")), "failed"),
        (fail(KeyError("secret")), "failed"), (fail(AssertionError("secret")), "failed"),
    ],
    ids=["over budget", "RecursionError", "MemoryError", "KeyError", "AssertionError"],
)  # fmt: skip
async def test_object_that_cannot_be_decided_is_allowed_unchanged(rig, act, outcome):
    rig.reviews.act = act
    status, response = await rig.send()
    assert (status, response["allowed"], "patch" in response, rig.outcomes) == (200, True, False, [outcome])
    assert response["warnings"]
    assert "secret" not in response["warnings"][0]


@pytest.mark.parametrize("act", [lambda: None, over_budget, fail(KeyError("x"))], ids=["answer", "late", "failure"])
async def test_review_counts_as_waiting_until_it_is_answered(rig, act):
    seen = []

    def look():
        seen.append(rig.reviews.waiting)
        act()

    rig.reviews.act = look
    await rig.send()
    assert (seen, rig.reviews.waiting) == ([1], 0)


async def test_each_kind_of_failure_is_logged_once(rig, caplog):
    rig.reviews.act = fail(KeyError("x"))
    for _ in range(3):
        await rig.send()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "the review of VirtualMachine tenants/web failed, it is allowed as it is"
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{}", 400), (b"[" * 100_000, 400), (b'{"request": {"uid": 5}}', 400), (b"\xff", 400),
        (b'{"request": {"uid": "u", "object": ' + b"[" * 1_000_000 + b"}}", 400), (io.BytesIO(b" " * (5 * 2**20)), 413),
    ],
    ids=["empty", "no request", "deep", "no uid", "no text", "deep object", "large"],
)  # fmt: skip
async def test_request_that_is_no_review_is_refused(rig, body, status):
    assert (await rig.send(body))[0] == status
    assert rig.outcomes == ["malformed"]


async def test_review_with_too_many_values_is_not_decoded(rig):
    body = json.dumps({"request": {"uid": "u", "object": [[]] * 100_000}})
    status, response = await rig.send(body)
    assert (status, response["allowed"], rig.reviews.seen) == (200, True, [])


async def test_body_that_does_not_arrive_times_out(rig):
    async def trickle():
        yield b"{"
        await asyncio.sleep(30)

    assert (await rig.send(trickle()))[0] == 408
    assert max(rig.outcomes.seconds) < 1


async def test_bodies_beyond_the_memory_limit_are_refused(rig, monkeypatch):
    monkeypatch.setattr(module, "_HELD_BYTES", 10)
    assert (await rig.send())[0] == 503


async def test_unauthenticated_peers_over_the_cpu_limit_get_no_patch(rig):
    rig.reviews.cpu_s = 5.0
    await rig.send()
    status, response = await rig.send()
    assert (status, response, rig.outcomes) == (200, {"uid": "u", "allowed": True}, ["unchanged", "throttled"])


class TestClientCertificate:
    async def test_only_the_owner_of_the_certificate_is_answered(self, pki):
        async with serving(pki, pki / "ca.crt") as rig:
            with pytest.raises(aiohttp.ClientError):
                await rig.send()
            assert (await rig.send(certificate=True))[0] == 200

    async def test_owner_of_the_certificate_is_never_throttled(self, pki):
        async with serving(pki, pki / "ca.crt") as rig:
            rig.reviews.cpu_s = 5.0
            for _ in range(3):
                await rig.send(certificate=True)
            assert rig.outcomes == ["unchanged"] * 3

    @pytest.mark.parametrize("content", [None, "", "no certificate", "\xe9"], ids=["absent", "empty", "text", "no ASCII"])
    def test_unusable_file_is_named(self, tmp_path, content):
        path = tmp_path / "ca.crt"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ClientAuthorityError, match=r"ca\.crt: .*--client-ca needs a file"):
            ClientAuthority(path, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def test_authority_added_to_the_file_takes_effect(self, pki, tmp_path):
        other = tmp_path / "other"
        write_pki(other)
        path, context = tmp_path / "ca.crt", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        path.write_bytes((pki / "ca.crt").read_bytes())
        authority = ClientAuthority(path, context)
        path.write_bytes((pki / "ca.crt").read_bytes() + (other / "ca.crt").read_bytes())
        authority.reload()
        assert context.cert_store_stats()["x509_ca"] == 2


def policy_review(**spec):
    return json.dumps({"request": {"uid": "u", "object": policy("all", **spec)}}).encode()


class World:
    """The part of the caches that a policy's review reads."""

    machines_synced = True

    def __init__(self):
        self.inputs = self
        self.cluster_facts = type("Facts", (), {"pools": {}})
        self.passes = 0
        self.go_on = asyncio.Event()

    async def selects_any(self, _policy):
        self.passes += 1
        await self.go_on.wait()
        return False


NAMES_A_POOL = policy_review(datapaths=["sriov"], sriov={"pool": "nowhere"})


async def test_unauthenticated_peers_do_not_learn_which_objects_exist():
    world = World()
    reviews = Reviews(world, SetAside(), is_authenticated=False)
    answer = await reviews.answer("policy", "u", Subject("VmNicPolicy", "all"), NAMES_A_POOL)
    assert (answer.review["response"], world.passes) == ({"uid": "u", "allowed": True}, 0)


async def test_policies_are_reviewed_one_at_a_time():
    world = World()
    reviews = Reviews(world, SetAside(), is_authenticated=True)
    first = asyncio.create_task(reviews.answer("policy", "u", Subject("VmNicPolicy", "all"), NAMES_A_POOL))
    while not world.passes:
        await asyncio.sleep(0)
    second = await reviews.answer("policy", "u", Subject("VmNicPolicy", "b"), NAMES_A_POOL)
    world.go_on.set()
    assert (second.review["response"], world.passes) == ({"uid": "u", "allowed": True}, 1)
    assert len((await first).review["response"]["warnings"]) == 2


async def test_object_set_aside_for_time_is_allowed_unchanged():
    set_aside = SetAside()
    set_aside.add(*WEB, SetAsideReason.TIME, "slow")
    answer = await Reviews(None, set_aside, is_authenticated=True).answer("virtualmachine", "u", WEB, b"not even read")
    assert (answer.review["response"]["allowed"], "patch" in answer.review["response"]) == (True, False)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_cpu_limit_grants_less_than_one_cpu():
    """A peer uses all the CPU time that it can get for a minute."""
    clock, used = Clock(), 0.0
    limit = CpuLimit(clock)
    while clock.now < 60:
        if not limit.deficit_s:
            limit.charge(0.1)
            used += 0.1
        clock.now += 0.01
    assert 30 < used < 36


class Connection:
    closed = False

    def force_close(self):
        self.closed = True


def test_silent_connections_are_closed():
    clock, silent, active = Clock(), Connection(), Connection()
    sweeper = ConnectionSweeper(lambda: [silent, active], clock)
    sweeper.sweep()
    sweeper.note_request(active)
    clock.now = 20
    sweeper.sweep()
    assert (silent.closed, active.closed) == (True, False)
    clock.now = 200
    sweeper.sweep()
    assert active.closed


def test_connections_over_the_limit_are_closed_idle_first():
    clock, active = Clock(), Connection()
    many = [Connection() for _ in range(600)]
    sweeper = ConnectionSweeper(lambda: [*many, active], clock)
    sweeper.note_request(active)
    sweeper.sweep()
    assert (sum(one.closed for one in many), active.closed) == (601 - 512, False)
