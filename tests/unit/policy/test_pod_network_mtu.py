"""MTU of a NIC on the pod network, which only the administrator knows."""

import pytest

from tests.builders.decide import collect
from tests.builders.vm import nad, nic, policy, vm
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan
from vmnic.kubevirt.vm_state import render_status


def planned(machine, mtu, *more, datapaths=("vhost",)):
    objects = collect(machine, policy(datapaths=datapaths, existing="Immediately"), *more)
    decided = decide_all(objects, offline=True, pod_network_mtu=mtu)
    return make_plan(objects, decided, [])["vms"][0]["nics"][0], render_status(decided.vms[0], None, None)["nics"][0]


def guest(nic_plan):
    mtu, static = nic_plan["guest"]["mtu"], nic_plan["guest"].get("staticMtu")
    return mtu and [*mtu.values()], static and [*static.values()]


EMULATED, VIRTIO = nic(model="e1000e"), nic(model="virtio")
BRIDGE = nic(binding="bridge", model="e1000e")


@pytest.mark.parametrize(
    ("machine", "datapath", "mtu", "static"),
    [
        (vm("web", EMULATED), "vhost", [8901, 8901], [1500, 8901]),
        (vm("web", BRIDGE), "vhost", [8901, 8901], [1500, 8901]),
        (vm("web", VIRTIO), "emulated", [8901, 8901], [8901, 1500]),
        (vm("web", EMULATED, os="windows"), "vhost", [1500, 8901], [1500, 8901]),
        (vm("web", EMULATED, os=None), "vhost", None, [1500, 8901]),
        (vm("web", VIRTIO), "vhost", [8901, 8901], None),
        (vm("web", EMULATED), "emulated", [8901, 8901], None),
        (vm("web", nic(binding="passt", model="virtio")), "vhost", None, None),
    ],
    ids=["Linux", "bridge", "the other way", "Windows", "unknown", "kept", "kept emulated", "another binding"],
)
def test_a_known_mtu_shows_what_the_guest_will_use(machine, datapath, mtu, static):
    found, _ = planned(machine, 8901, datapaths=[datapath])
    assert guest(found) == (mtu, static)


@pytest.mark.parametrize("machine", [vm("web", EMULATED), vm("web", EMULATED, os="windows")], ids=["Linux", "Windows"])
def test_it_is_a_note_and_no_reason(machine):
    known, state = planned(machine, 8901)
    unknown, silent = planned(machine, None)
    assert (known["verdict"], known["reason"], guest(unknown)) == ("Change", None, (None, None))
    assert {**known, "guest": None} == {**unknown, "guest": None}
    assert ("MTU 1500 to 8901" in state["guest"], "MTU" in silent["guest"]) == (True, False)


def test_an_equal_mtu_says_nothing():
    assert guest(planned(vm("web", EMULATED), 1500)[0]) == ([1500, 1500], None)


def test_other_networks_do_not_have_it():
    machine = vm("web", nic("data", binding="bridge", network="br", model="e1000e"))
    assert guest(planned(machine, 8901, nad("br"))[0]) == (None, None)
    second = vm("web", (EMULATED[0], {"name": "default", "multus": {"networkName": "br", "default": True}}))
    assert guest(planned(second, 8901, nad("br"))[0]) == (None, None)
