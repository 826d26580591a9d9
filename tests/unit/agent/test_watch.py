"""Which events of a host trigger an observation. The contract covers what a simulated host and a kernel send."""

import asyncio
import contextlib
import json

import pytest

from tests.builders.host import OTHER_PF, PF, pf, served, sim_host
from vmnic.agent.watch import HostEvents
from vmnic.host.events import LOST, encode_event
from vmnic.host.ops import SetLink, WriteFile
from vmnic.host.socket import LISTEN

VFS = f"/sys/bus/pci/devices/{OTHER_PF}/sriov_numvfs"


@contextlib.asynccontextmanager
async def listening(host, *watched):
    told = asyncio.Queue()
    task = asyncio.create_task(HostEvents(host, lambda: set(watched), lambda: told.put_nowait(None)).run())
    yield told
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def is_told(told):
    """Return whether an event triggers within a second."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(told.get(), 1)
        return True
    return False


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        (lambda sim: sim.perform(SetLink(name="ens11", mtu=9000)), True),
        (lambda sim: sim.control({"rename_link": {"link": "ens11", "name": "fast"}}), True),
        (lambda sim: sim.perform(SetLink(name="ens12", mtu=9000)), False),
        (lambda sim: sim.perform(WriteFile(VFS, "1")), True),
    ],
    ids=["a watched link", "its new name", "another link", "a function"],
)
async def test_watched_links_and_all_pci_functions_trigger(tmp_path, change, matters):
    path = tmp_path / "host.sock"
    with served(sim_host(pf(), pf(OTHER_PF), waits=True), path) as sim:
        async with listening(f"sim:{path}", "ens11", PF) as told:
            assert await asyncio.wait_for(told.get(), 5) is None, "what was before is not known"
            change(sim)
            assert await is_told(told) is matters


async def test_a_reconnection_to_a_simulated_host_triggers(tmp_path):
    async def answer(reader, writer):
        assert json.loads(await reader.readline()) == LISTEN
        writer.write(json.dumps(encode_event(LOST)).encode() + b"\n")
        writer.close()

    path = tmp_path / "host.sock"
    async with await asyncio.start_unix_server(answer, path), listening(f"sim:{path}", "ens11") as told:
        for _ in (1, 2):
            await asyncio.wait_for(told.get(), 5)
