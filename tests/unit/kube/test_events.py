"""Events are written once, in the background."""

import asyncio
import contextlib

import pytest

from vmnic.kube import events as module
from vmnic.kube.errors import ApiError, ConflictError
from vmnic.kube.events import Events, Subject

POOL = Subject(api_version="vmnic.dev/v1alpha1", kind="SriovNetworkPool", name="fast", uid="u1")
VM = Subject(api_version="kubevirt.io/v1", kind="VirtualMachine", name="web", namespace="tenants", uid="u2")


class Recorder:
    """Records writes, and refuses them with `error` if it is set."""

    def __init__(self, error=None):
        self.error = error
        self.created, self.patched = [], []

    async def create(self, resource, body, namespace):
        self.created.append((namespace, body))
        if self.error is not None:
            raise self.error

    async def patch_merge(self, resource, name, body, namespace):
        self.patched.append((namespace, name, body["series"]["count"]))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)


async def written(api, *news, until):
    """Queue Events and write until the recorder has what is awaited."""
    events = Events(api, "me")
    for one in news:
        events.tell(*one)
    task = asyncio.create_task(events.run())
    async with asyncio.timeout(5):
        while not until():
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_event_is_written_once_where_describe_looks_for_it():
    api = Recorder()
    ready = (POOL, "Normal", "AllNodesReady", "Prepare", "3/3 nodes are ready")
    await written(api, ready, ready, (VM, "Normal", "NicChanged", "Patch", "default"), until=lambda: len(api.created) == 2)
    assert [(where, body["regarding"]["name"], body["reason"]) for where, body in api.created] == [
        ("default", "fast", "AllNodesReady"),
        ("tenants", "web", "NicChanged"),
    ]


async def test_event_of_another_process_is_counted():
    api = Recorder(ConflictError(status=409, reason="AlreadyExists", message=""))
    await written(api, (VM, "Normal", "Restarted", "Restart", "again"), until=lambda: api.patched)
    assert [(where, count) for where, _, count in api.patched] == [("tenants", 2)]


async def test_refusal_drops_the_event_only():
    api = Recorder(ApiError(status=403, reason="Forbidden", message="no"))
    news = [(VM, "Normal", "Restarted", "Restart", "again"), (POOL, "Warning", "NodesFailed", "Prepare", "n1")]
    await written(api, *news, until=lambda: len(api.created) == 2)


@pytest.mark.parametrize("note", ["a\nb\x1b[31m\x9b\u202e", "\udc80", "ä" * 1000, "\x1b" * 1000], ids=range(4))
async def test_note_is_printable_and_within_the_servers_limit(note):
    api = Recorder()
    await written(api, (VM, "Warning", "NicChanged", "Patch", note), until=lambda: api.created)
    shown = api.created[0][1]["note"]
    assert (shown.isprintable(), len(shown.encode()) <= 1024) == (True, True)


@pytest.mark.parametrize("name", ["a" * 229 + "-x", "a" * 229 + ".x", "a" * 253])
async def test_name_of_an_event_is_a_dns_name(name):
    api = Recorder()
    long = Subject(api_version="v1", kind="Node", name=name, uid="u")
    await written(api, (long, "Normal", "Cordoned", "Drain", "n"), until=lambda: api.created)
    made = api.created[0][1]["metadata"]["name"]
    assert (len(made) <= 253, "-." in made, ".." in made) == (True, False, False)


async def test_event_that_cannot_be_sent_does_not_end_the_writer():
    api = Recorder(UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates"))
    news = [(VM, "Normal", "Restarted", "Restart", "again"), (POOL, "Warning", "NodesFailed", "Prepare", "n1")]
    await written(api, *news, until=lambda: len(api.created) == 2)
