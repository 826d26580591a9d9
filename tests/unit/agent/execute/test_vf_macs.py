"""MAC addresses that the agent gives to VFs."""

from dataclasses import replace

import msgspec

from tests.builders.agent import Node, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from vmnic.api.node_state import VfSettings
from vmnic.host.ops import ReadLinks, ReadVfs

NAMED = {"settings": VfSettings(mac_prefix="02:11:22"), "num_vfs": 4}


async def test_ports_with_consecutive_addresses_have_distinct_vfs(tmp_path):
    sim = sim_host(pf(mac="52:54:00:00:0b:00"), pf(OTHER_PF, mac="52:54:00:00:0b:01"))
    node = Node(sim, tmp_path)
    asked = [desired(address, **NAMED) for address in (PF, OTHER_PF)]
    node.api.ask(*asked)
    seen = (await node.agent.run(node.api.state)).pfs
    node.api.ask(*(msgspec.structs.replace(one, grant=pf.plan.digest) for one, pf in zip(asked, seen, strict=True)))
    await node.run_pass()
    macs = [vf.mac for link in sim.perform(ReadLinks()) for vf in sim.perform(ReadVfs(link.name))]
    assert len(macs) == len(set(macs)) == 8


async def test_another_address_of_the_pf_changes_no_vf(tmp_path):
    node = Node(sim_host(pf(mac="52:54:00:00:0b:00")), tmp_path)
    await node.grant_and_run(desired(**NAMED))
    read = node.port.perform

    def bonded(op):
        # As a port of a bond, which has the address of the bond.
        found = read(op)
        is_links = isinstance(op, ReadLinks)
        return (
            tuple(replace(one, mac="02:00:00:00:00:99") if one.pci_address == PF else one for one in found)
            if is_links
            else found
        )

    node.port.perform = bonded
    node.api.ask(desired(**NAMED))
    assert (await node.run_pass()).plan is None
