"""Malformed input from files, devices and the API server.

No loop ends, no VF in use is withdrawn, and the status names the fault.
"""

import asyncio
import contextlib
import errno
import logging
import time

import msgspec
import pytest

from tests.builders.agent import Node, RecordingDevices, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from vmnic.agent import wiring as compose
from vmnic.agent.journal import JournalError, JournalStore
from vmnic.api.node_state import NodeStatus
from vmnic.host.ops import ReadFile
from vmnic.inspection.holder_files import _devices
from vmnic.inspection.keyfile import KeyfileError, parse_keyfile
from vmnic.inspection.modules import refused_modules
from vmnic.nodes.state import decode_own_state

VF = "0000:0b:10.2"


@pytest.fixture
def node(tmp_path):
    found = Node(sim_host(pf(PF), pf(OTHER_PF)), tmp_path)
    found.devices = RecordingDevices()
    found.restart_agent()
    return found


def answering(node, path, answer):
    """Let the kernel answer a read of one file with the given value."""
    perform = node.port.perform

    def changed(op):
        if op != ReadFile(path):
            return perform(op)
        if isinstance(answer, Exception):
            raise answer
        return answer

    node.port.perform = changed


class FaultyPasses:
    """Fails several times in different ways, and then ends the test."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.done = asyncio.Event()

    async def run(self, state):
        if self.errors:
            raise self.errors.pop(0)
        self.done.set()
        return NodeStatus()


class Synced:
    def __init__(self):
        self.items = {}
        self.synced = asyncio.Event()
        self.synced.set()


async def test_the_loop_continues_after_any_exception_of_a_pass(caplog):
    errors = [RecursionError("deep"), RecursionError("deep"), MemoryError(), OverflowError("x"), KeyError("y")]
    passes = FaultyPasses(*errors)
    task = asyncio.create_task(compose._loop(passes, Synced(), "n1", asyncio.Event(), lambda status: None, 0.001))
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(passes.done.wait(), 5)
    task.cancel()
    faults = [record for record in caplog.records if "a reconciliation failed" in record.message]
    assert [record.exc_info is not None for record in faults] == [True, False, True, True, True]


async def test_an_internal_error_is_published_and_withdraws_nothing(node, monkeypatch):
    await node.grant_and_run(desired())
    monkeypatch.setattr("vmnic.agent.observe.observer.plan_pf", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await node.agent.run(node.api.state)
    ready = node.api.state.status.conditions[0]
    assert (ready.status, "ZeroDivisionError" in ready.message, node.devices.faults) == ("False", True, {PF: ""})


RECORDS = ["/run/libvirt/qemu/x.xml", f"/var/lib/cni/sriov/pci/{VF}"]


@pytest.mark.parametrize("path", RECORDS)
async def test_an_unreadable_record_stops_only_changes(tmp_path, path):
    node = Node(sim_host(files={path: "x"}), tmp_path)
    node.devices = RecordingDevices()
    node.restart_agent()
    await node.grant_and_run(desired())
    answering(node, path, OSError(errno.EISDIR, "Is a directory"))
    node.api.ask(desired(num_vfs=3))
    planned = await node.run_pass()
    assert (planned.num_vfs, node.devices.faults) == (7, {PF: ""})
    node.api.ask(desired(num_vfs=3, grant=planned.plan.digest))
    assert (await node.run_pass()).num_vfs == 7
    assert path in node.api.state.status.conditions[0].message


@pytest.mark.parametrize("answer", ["", "x", "-1", "9" * 5000, "1.5"])
@pytest.mark.parametrize("file", ["sriov_numvfs", "sriov_totalvfs"])
async def test_a_device_without_a_number_is_unreadable_alone(node, file, answer):
    node.api.ask(desired(), desired(OTHER_PF))
    answering(node, f"/sys/bus/pci/devices/{PF}/{file}", answer)
    await node.agent.run(node.api.state)
    answering(node, f"/sys/bus/pci/devices/{PF}/numa_node", "")
    status = await node.agent.run(node.api.state)
    assert [pf.pci_address for pf in status.pfs if pf.problem is None] == [OTHER_PF]


DAMAGED = {
    "too deep": b'{"version": 1, "pfs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "too large": b'{"version": 1}' + b" " * 2**23,
    "another version": b'{"version": 0}',
    "no number": b'{"version": "1"}',
    "a huge number": b'{"version": ' + b"9" * 5000 + b"}",
    "a list": b"[]",
    "out of bounds": b'{"version": 1, "pfs": {"x": {"attempt": 1, "apply": {"digest": "zz", "state": "Applied"}}}}',
}


@pytest.mark.parametrize("raw", DAMAGED.values(), ids=DAMAGED)
def test_a_malformed_journal_stops_writes_with_a_remedy(tmp_path, raw):
    (tmp_path / "journal.json").write_bytes(raw)
    with pytest.raises(JournalError, match=r"restore it|upgrade the agent"):
        JournalStore(tmp_path).load()


async def test_an_unreadable_spec_changes_nothing_and_is_reported(node):
    await node.grant_and_run(desired())
    body = {"metadata": {"name": "n1"}, "spec": {"synced": True, "pfs": [{"pciAddress": "zz", "pool": "fast"}]}}
    state = decode_own_state(msgspec.json.encode(body))
    writes = list(node.written)
    status = await node.agent.run(state)
    assert (node.written, node.devices.faults, status.pfs[0].num_vfs) == (writes, {PF: ""}, 7)
    assert "the spec cannot be read" in status.conditions[0].message


@pytest.mark.parametrize("text", ["", "{}", "5", "[" * 30_000, '["a", 5]', '"x"' + " " * 70_000])
def test_malformed_entries_of_refused_modules_are_ignored(tmp_path, text):
    (tmp_path / "modules.json").write_text(text)
    assert refused_modules(tmp_path) == (("a",) if text == '["a", 5]' else ())


@pytest.mark.parametrize(
    "part", ["<hostdev type='pci'>", "<source>", "<", "<address domain='0x", "<hostdev type='pci'><source>"]
)
def test_any_domain_text_is_read_within_50_ms(part):
    text = (part * 2**19)[: 2**19]
    start = time.process_time()
    assert list(_devices(text)) == []
    assert time.process_time() - start < 0.05


@pytest.mark.parametrize("part", ["[a]\n", "a=b\n", "\n", "[", "#" * 100])
def test_any_profile_text_is_read_within_50_ms(part):
    text = (part * 65_536)[:65_536]
    start = time.process_time()
    with contextlib.suppress(KeyfileError):
        parse_keyfile(text, most_chars=65_536)
    assert time.process_time() - start < 0.05
