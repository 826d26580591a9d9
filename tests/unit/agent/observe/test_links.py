"""Links of a function: its ports, its representors, and links of pods on top of them."""

import errno
from dataclasses import replace

import msgspec
import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import OTHER_PF, pf, sim_host
from tests.harness.faults import Fault, When
from vmnic.agent.kubelet.podresources import HoldersUnknownError
from vmnic.api.node_state import Annotations, ApplyState, VfSettings
from vmnic.api.reasons import PfReason
from vmnic.cli.approve import approve_plans
from vmnic.host.ops import ReadEswitchMode, ReadLinks, ReadUnicast, ReadVfs, SetLink, SetVf, WriteFile
from vmnic.simhost.spec import PortSpec

SWITCHDEV = {"eswitch": "switchdev", "phys_port_name": "p0"}
TAP = {"name": "tap7", "kind": "macvtap", "lower": "ens11", "mac": "02:00:00:00:00:77", "mode": "bridge"}
MACVTAP = "macvtap.network.kubevirt.io"
TRUSTED = VfSettings(trust=True)


def node_with(tmp_path, **changes):
    return Node(sim_host(pf(**changes)), tmp_path)


async def planned(node, spec=None):
    node.api.ask(spec or desired())
    return await node.run_pass()


async def granted(node, spec):
    """Ask for a spec whose plan is granted, also if an earlier one was."""
    status = await planned(node, spec)
    assert status.plan is not None
    node.api.ask(msgspec.structs.replace(spec, grant=status.plan.digest))
    return await node.run_pass()


def refuse(node, code, kind):
    node.port.faults.append(Fault(when=When.ERRNO, errno=code, matches=lambda op: isinstance(op, kind)))


def approve(node):
    """Approve what the status shows, as a person does."""
    value = approve_plans(node.api.state, None).value
    meta = msgspec.structs.replace(node.api.state.metadata, annotations=Annotations(approved=value))
    node.api.state = msgspec.structs.replace(node.api.state, metadata=meta)


def without_parents(node):
    """Let the dump be as on kernels before 5.14, which do not name the parent of a link."""
    perform = node.port.perform

    def old(op):
        if isinstance(op, ReadLinks):
            return tuple(replace(link, pci_address=None) for link in perform(op))
        return perform(op)

    node.port.perform = old


class TestSwitchdev:
    @pytest.mark.parametrize("old", [False, True], ids=["parents in the dump", "parents only in sysfs"])
    async def test_a_pf_has_the_name_and_the_uses_of_its_uplink(self, tmp_path, old):
        node = node_with(tmp_path, vfs=2, addresses=("192.0.2.10/24",), default_route=True, **SWITCHDEV)
        if old:
            without_parents(node)
        status = await planned(node, desired(num_vfs=4))
        assert (status.name, status.host_use) == ("ens11", ("address 192.0.2.10/24", "default route"))
        assert (status.plan, status.problem.reason, status.eswitch_mode) == (None, PfReason.HOST_USED, "switchdev")

    async def test_writes_go_to_the_uplink(self, tmp_path):
        # The name of this representor comes first in sysfs.
        other = PortSpec(name="58609951635cbfa", phys_port_name="c1pf0vf0")
        node = node_with(tmp_path, vfs=2, up=False, ports=(other,), **SWITCHDEV)
        status = await granted(node, desired(num_vfs=2, mtu=9000))
        assert status.apply.state is ApplyState.APPLIED
        assert {op.name for op in node.port.writes if isinstance(op, SetLink)} == {"ens11"}

    @pytest.mark.parametrize(
        ("command", "use"),
        [
            ({"add_upper": {"name": "br7", "kind": "bridge", "lower": "ens11r1", "is_master": True}}, "place in br7"),
            ({"assign_address": {"link": "ens11r1", "address": "192.0.2.9/24"}}, "address 192.0.2.9/24"),
        ],
        ids=["in a bridge", "with an address"],
    )
    async def test_a_representor_in_use_holds_its_vf(self, tmp_path, command, use):
        node = node_with(tmp_path, vfs=2, **SWITCHDEV)
        node.sim.control(command)
        status = await planned(node, desired(num_vfs=4))
        words = f"the host ({use} on representor ens11r1)"
        assert [(held.vf, held.by) for held in status.held] == [("0000:0b:10.2", words)]
        assert (status.plan.disruptive, status.plan.hard) == (True, (f"{words} holds 0000:0b:10.2",))

    async def test_a_free_representor_holds_nothing(self, tmp_path):
        node = node_with(tmp_path, vfs=2, **SWITCHDEV)
        status = await granted(node, desired(num_vfs=4))
        assert (status.held, status.num_vfs, status.apply.state) == ((), 4, ApplyState.APPLIED)

    async def test_a_representor_of_the_function_keeps_the_number_of_vfs(self, tmp_path):
        other = PortSpec(name="ens11c", phys_port_name="c1pf0vf0", addresses=("192.0.2.9/24",))
        node = node_with(tmp_path, vfs=2, ports=(other,), **SWITCHDEV)
        status = await planned(node, desired(num_vfs=4, allow_host_used=True))
        assert status.host_use == ("address 192.0.2.9/24 on representor ens11c",)
        assert status.plan.hard == ("the host has the address 192.0.2.9/24 on representor ens11c",)

    async def test_attributes_of_vfs_are_refused(self, tmp_path):
        node = node_with(tmp_path, vfs=2, **SWITCHDEV)
        status = await planned(node, desired(num_vfs=2, settings=TRUSTED))
        assert (status.plan, status.problem.reason) == (None, PfReason.SWITCHDEV_MODE)
        assert "leave spec.vf out of the pool" in status.problem.message

    @pytest.mark.parametrize("code", [errno.ENOENT, errno.EOPNOTSUPP, errno.EPERM], ids=errno.errorcode.get)
    async def test_an_unknown_mode_counts_as_legacy(self, tmp_path, code):
        node = node_with(tmp_path, vfs=2, **SWITCHDEV)
        refuse(node, code, ReadEswitchMode)
        status = await planned(node, desired(num_vfs=2, settings=TRUSTED))
        assert (status.eswitch_mode, status.plan.actions[0].kind) == ("", "SetVfs")

    async def test_legacy_mode_is_as_without_an_e_switch(self, tmp_path):
        node = node_with(tmp_path, eswitch="legacy", phys_port_name="p0s1")
        status = await granted(node, desired(settings=TRUSTED))
        assert (status.apply.state, status.eswitch_mode, status.name) == (ApplyState.APPLIED, "", "ens11")


class TestSeveralPorts:
    PORTS = (PortSpec(name="ens11d1", addresses=("192.0.2.9/24",)),)

    async def test_all_ports_count_for_names_and_host_use(self, tmp_path):
        status = await planned(node_with(tmp_path, alt_names=("enp11s0",), ports=self.PORTS))
        assert (status.name, status.alt_names, status.several_ports) == ("ens11", ("ens11d1", "enp11s0"), True)
        assert (status.host_use, status.problem.reason) == (("address 192.0.2.9/24 on ens11d1",), PfReason.HOST_USED)

    @pytest.mark.parametrize("changes", [{"mtu": 9000}, {"queues": 2}, {"settings": TRUSTED}], ids=str)
    async def test_writes_to_links_are_refused(self, tmp_path, changes):
        node = node_with(tmp_path, ports=(PortSpec(name="ens11d1"),))
        status = await planned(node, desired(**changes))
        assert (status.plan, status.problem.reason) == (None, PfReason.SEVERAL_PORTS)
        assert "(ens11, ens11d1)" in status.problem.message

    async def test_a_profile_for_any_port_manages_the_function(self, tmp_path):
        profile = "/etc/NetworkManager/system-connections/vfs.nmconnection"
        text = "[connection]\ntype=ethernet\ninterface-name=ens11d1\n[sriov]\ntotal-vfs=4\n"
        node = Node(sim_host(pf(ports=(PortSpec(name="ens11d1"),)), files={profile: text}), tmp_path)
        assert (await planned(node)).problem.reason is PfReason.FOREIGN_OWNER

    async def test_vfs_are_created_and_links_stay_as_they_are(self, tmp_path):
        node = node_with(tmp_path, up=False, ports=(PortSpec(name="ens11d1"),))
        status = await granted(node, desired())
        assert (status.apply.state, status.num_vfs) == (ApplyState.APPLIED, 7)
        assert {type(op) for op in node.port.writes} == {WriteFile}


class TestLinkType:
    @pytest.mark.parametrize(("kind", "word"), [("infiniband", "InfiniBand"), ("772", "of hardware type 772")])
    async def test_vfs_need_an_ethernet_link(self, tmp_path, kind, word):
        status = await planned(node_with(tmp_path, link_type=kind))
        assert (status.plan, status.problem.reason, status.link_type) == (None, PfReason.LINK_TYPE_DIFFERS, kind)
        assert word in status.problem.message

    async def test_one_port_that_is_no_ethernet_port_is_enough(self, tmp_path):
        node = node_with(tmp_path, ports=(PortSpec(name="ens11d1"),))
        perform = node.port.perform

        def mixed(op):
            if isinstance(op, ReadLinks):
                return tuple(replace(one, type="infiniband" if one.name == "ens11d1" else one.type) for one in perform(op))
            return perform(op)

        node.port.perform = mixed
        assert (await planned(node)).problem.reason is PfReason.LINK_TYPE_DIFFERS

    async def test_the_whole_function_may_be_handed_out(self, tmp_path):
        status = await planned(node_with(tmp_path, link_type="infiniband"), desired(function="Physical", num_vfs=0))
        assert (status.problem, status.plan.text) == (None, "bind the whole NIC to vfio-pci")


class TestFailedReads:
    async def test_unreadable_vfs_cost_one_function(self, tmp_path):
        node = Node(sim_host(pf(), pf(OTHER_PF)), tmp_path)
        first = lambda op: isinstance(op, ReadVfs) and op.name == "ens11"  # noqa: E731
        node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EMSGSIZE, matches=first))
        node.api.ask(desired(settings=TRUSTED), desired(OTHER_PF, settings=TRUSTED))
        status, other = (await node.agent.run(node.api.state)).pfs
        assert (status.plan, status.problem.reason) == (None, PfReason.UNREADABLE)
        assert "the VFs of ens11 (0000:0b:00.0) cannot be read: EMSGSIZE" in status.problem.message
        assert "update the kernel, or create fewer VFs" in status.problem.message
        assert (other.plan.text != "", other.problem) == (True, None)

    async def test_unreadable_vfs_are_reported_and_do_not_stop_others(self, tmp_path):
        node = node_with(tmp_path)
        refuse(node, errno.EMSGSIZE, ReadVfs)
        status = await granted(node, desired())
        assert (status.apply.state, status.num_vfs) == (ApplyState.APPLIED, 7)
        assert (status.problem.reason, "EMSGSIZE" in status.problem.message) == (PfReason.UNREADABLE, True)

    async def test_a_filter_that_cannot_be_read_makes_a_plan_disruptive(self, tmp_path):
        node = node_with(tmp_path)
        refuse(node, errno.EPERM, ReadUnicast)
        plan = (await planned(node)).plan
        assert (plan.disruptive, plan.blocked_by) == (True, ("the unicast filter of ens11 cannot be read: EPERM",))


class TestUnreportedAttributes:
    async def test_trust_is_attempted_and_the_refusal_is_told(self, tmp_path):
        node = node_with(tmp_path, vfs=7, reports_flags=False)
        status = await granted(node, desired(settings=TRUSTED))
        assert (status.apply.state, status.problem.reason) == (ApplyState.FAILED, PfReason.APPLY_FAILED)
        assert "SetVfs 0-6: EOPNOTSUPP" in status.problem.message
        assert "leave it out of spec.vf" in status.problem.message

    @pytest.mark.parametrize("vfs", [0, 7], ids=["new VFs", "present VFs"])
    async def test_no_trust_is_nothing_to_do(self, tmp_path, vfs):
        node = node_with(tmp_path, vfs=vfs, reports_flags=False)
        status = await granted(node, desired(settings=VfSettings(trust=False)))
        assert (status.apply.state, status.plan, status.problem) == (ApplyState.APPLIED, None, None)
        assert not [op for op in node.port.writes if isinstance(op, SetVf)]

    @pytest.mark.parametrize("settings", [TRUSTED, VfSettings(spoof_check=False), VfSettings(spoof_check=True)], ids=str)
    async def test_what_the_kernel_accepted_is_not_written_again(self, tmp_path, settings):
        node = node_with(tmp_path, vfs=7)
        perform = node.port.perform

        def silent(op):
            if isinstance(op, ReadVfs):
                return tuple(replace(one, trust=None, spoof_check=None) for one in perform(op))
            return perform(op)

        node.port.perform = silent
        status = await granted(node, desired(settings=settings))
        assert (status.apply.state, status.plan, status.problem) == (ApplyState.APPLIED, None, None)


class TestOutsideUses:
    @pytest.mark.parametrize("kind", ["macvtap", "macvlan"])
    async def test_a_link_of_a_pod_is_a_use(self, tmp_path, kind):
        node = node_with(tmp_path)
        node.sim.control({"add_upper": TAP | {"kind": kind}})
        assert (await planned(node)).problem.reason is PfReason.HOST_USED
        node.sim.control({"move_link": "tap7"})
        status = await node.run_pass()
        words = "unicast address 02:00:00:00:00:77 on ens11 (a macvlan of a pod?)"
        assert (status.problem, status.outside_use) == (None, (words,))
        assert (status.plan.disruptive, status.plan.hard, status.plan.soft) == (True, (), (words,))
        node.sim.control({"bring_links_back": None})
        assert (await node.run_pass()).plan.disruptive is False

    async def test_passthru_mode_is_seen_by_promiscuity(self, tmp_path):
        node = node_with(tmp_path)
        node.sim.control({"add_upper": TAP | {"mode": "passthru"}})
        node.sim.control({"move_link": "tap7"})
        assert (await planned(node)).plan.blocked_by == ("promiscuous mode of ens11 (a macvlan of a pod in passthru mode?)",)

    @pytest.mark.parametrize(
        "commands",
        [
            [{"add_upper": TAP | {"name": "br7", "kind": "bridge", "is_master": True}}],
            [{"add_upper": TAP}],
            [{"add_upper": TAP | {"mode": "passthru"}}],
            [{"add_upper": TAP | {"lower": "ens12"}}, {"add_unicast": {"link": "ens11", "mac": TAP["mac"]}}],
        ],
        ids=["a bridge", "a macvtap", "a macvtap in passthru mode", "an address of another link"],
    )
    async def test_links_of_the_host_explain_what_they_cause(self, tmp_path, commands):
        node = Node(sim_host(pf(), pf(OTHER_PF)), tmp_path)
        for command in commands:
            node.sim.control(command)
        assert (await planned(node, desired(allow_host_used=True))).outside_use == ()

    async def test_an_approval_covers_only_what_was_seen(self, tmp_path):
        node = node_with(tmp_path)
        node.sim.control({"add_unicast": {"link": "ens11", "mac": TAP["mac"]}})
        plan = (await planned(node)).plan
        approve(node)
        more = {"add_unicast": {"link": "ens11", "mac": "02:00:00:00:00:78"}}
        node.api.before_claim = lambda: node.sim.control(more)
        node.api.ask(desired(grant=plan.digest))
        approve(node)
        status = await node.run_pass()
        assert (status.apply.state, status.num_vfs) == (ApplyState.REFUSED, 0)
        assert "unicast address 02:00:00:00:00:78" in status.apply.message
        node.api.before_claim = lambda: None
        plan = (await planned(node)).plan
        node.api.ask(desired(grant=plan.digest))
        approve(node)
        assert (await node.run_pass()).apply.state is ApplyState.APPLIED

    async def test_only_plans_that_interrupt_the_link_are_blocked(self, tmp_path):
        node = node_with(tmp_path, vfs=7)
        node.sim.control({"add_unicast": {"link": "ens11", "mac": TAP["mac"]}})
        plan = (await planned(node)).plan
        assert ("SetNumVfs" in {action.kind for action in plan.actions}, plan.disruptive, plan.blocked_by) == (False, False, ())

    async def test_a_link_of_a_pod_on_a_vf_is_a_use_of_the_vf(self, tmp_path):
        node = node_with(tmp_path)
        await granted(node, desired(driver="kernel"))
        node.sim.control({"add_upper": TAP | {"lower": "ens11v3"}})
        node.sim.control({"move_link": "tap7"})
        plan = (await planned(node, desired(num_vfs=4, driver="kernel"))).plan
        assert plan.blocked_by == ("unicast address 02:00:00:00:00:77 on ens11v3 (a macvlan of a pod?)",)

    async def test_a_macvtap_that_the_kubelet_names_is_a_use(self, tmp_path):
        node = node_with(tmp_path)
        node.holders.names[f"{MACVTAP}/ens11/ens11Mvp19"] = "pod tenants/virt-launcher-db"
        words = "pod tenants/virt-launcher-db holds ens11Mvp19"
        plan = (await planned(node)).plan
        assert (plan.disruptive, plan.hard, plan.soft) == (True, (), (f"{words} and loses its link for seconds",))
        plan = (await planned(node, desired(function="Physical", num_vfs=0))).plan
        assert (plan.disruptive, plan.hard, plan.soft) == (True, (words,), ())

    async def test_a_macvtap_on_another_nic_is_no_use(self, tmp_path):
        node = Node(sim_host(pf(), pf(OTHER_PF)), tmp_path)
        node.holders.names[f"{MACVTAP}/ens12/ens12Mvp0"] = "pod tenants/launcher"
        assert (await planned(node)).plan.blocked_by == ()

    async def test_a_macvtap_on_a_vf_holds_it(self, tmp_path):
        node = node_with(tmp_path)
        await granted(node, desired(driver="kernel"))
        node.holders.names[f"{MACVTAP}/ens11v3/ens11v3Mvp0"] = "pod tenants/launcher"
        plan = (await planned(node, desired(num_vfs=4, driver="kernel"))).plan
        assert plan.blocked_by == ("pod tenants/launcher holds 0000:0b:10.6",)

    async def test_a_macvtap_without_a_link_may_be_anywhere_at_first(self, tmp_path):
        node = node_with(tmp_path)
        node.holders.names[f"{MACVTAP}/dataplane/dataplaneMvp0"] = "pod tenants/launcher"
        words = ("pod tenants/launcher holds dataplaneMvp0, which may be on ens11",)
        assert (await planned(node)).plan.blocked_by == words
        assert (await node.run_pass()).plan.blocked_by == words
        node.clock += 10
        assert (await node.run_pass()).plan.blocked_by == ()
        node.sim.control({"add_unicast": {"link": "ens11", "mac": TAP["mac"]}})
        assert words[0] in (await node.run_pass()).plan.blocked_by

    async def test_a_macvtap_that_comes_after_the_plan_is_not_cleared(self, tmp_path):
        node = node_with(tmp_path)
        names = {f"{MACVTAP}/dataplane/dataplaneMvp0": "pod tenants/launcher"}
        node.api.before_claim = lambda: node.holders.names.update(names)
        status = await granted(node, desired())
        assert (status.apply.state, status.num_vfs) == (ApplyState.REFUSED, 0)

    async def test_a_cleared_macvtap_stays_cleared_before_the_first_write(self, tmp_path):
        node = node_with(tmp_path)
        node.holders.names[f"{MACVTAP}/dataplane/dataplaneMvp0"] = "pod tenants/launcher"
        await planned(node)
        node.clock += 10
        assert (await granted(node, desired())).apply.state is ApplyState.APPLIED

    async def test_a_kubelet_that_cannot_be_asked_makes_a_plan_disruptive(self, tmp_path):
        node = node_with(tmp_path, vfs=7)
        assert (await planned(node, desired(mtu=9000))).plan.disruptive is False

        async def read():
            raise HoldersUnknownError("the kubelet does not tell")

        node.holders.read = read
        assert (await planned(node, desired(mtu=9000))).plan.disruptive is True


class TestAddresses:
    async def test_vfs_in_domains_of_their_own_are_listed(self, tmp_path):
        status = await granted(node_with(tmp_path, vf_domain=0xA000), desired(num_vfs=3))
        assert status.vf_addresses == ("a000:00:02.0", "a001:00:02.0", "a002:00:02.0")

    async def test_addresses_that_a_stride_gives_are_not_listed(self, tmp_path):
        status = await granted(node_with(tmp_path), desired(num_vfs=3))
        assert (status.vf_addresses, status.first_vf, status.vf_stride) == ((), "0000:0b:10.0", 2)
