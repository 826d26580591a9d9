"""`kubectl vmnic plan` on manifests without the instances of running VMs."""

import pytest

from tests.builders.vm import nad, nic, policy, vm, vmi
from tests.unit.cli.test_plan import documents, plan_of, run

NOW = policy("linux", existing="Immediately")


@pytest.mark.parametrize("mac", [None, "02:00:00:00:00:01"])
def test_a_running_vm_without_an_instance_is_a_change(mac):
    given = {"macAddress": mac} if mac else {}
    code, plan = plan_of(NOW, vm("web", nic(model="e1000e", **given), run_strategy="Always"))
    machine = plan["vms"][0]
    found = machine["nics"][0]
    assert (code, found["verdict"], found["macAddress"], machine["patchComplete"]) == (1, "Change", mac, mac is not None)
    assert ("vmnic adds the MAC address" in found["message"]) is (mac is None)


@pytest.mark.parametrize("output", ["table", "markdown"])
def test_every_output_says_that_vmnic_adds_the_address(output):
    given = documents(NOW, vm("web", nic(model="e1000e"), run_strategy="Always"))
    assert "vmnic adds the" in run("plan", "-f", "-", "-o", output, text=given)[1]


def test_a_stopped_vm_has_no_address_to_keep():
    _, plan = plan_of(NOW, vm("web", nic(model="e1000e"), run_strategy="Halted"))
    assert (plan["vms"][0]["patchComplete"], plan["vms"][0]["nics"][0]["message"].count("MAC")) == (True, 0)


def test_an_instance_without_an_address_blocks_the_change():
    _, plan = plan_of(NOW, vm("web", nic(model="e1000e"), run_strategy="Always"), vmi(models={"default": "e1000e"}))
    assert plan["vms"][0]["nics"][0]["reason"] == "MacUnknown"


def test_the_plan_shows_what_the_guest_will_see():
    jumbo = nad("br", mtu=8901, accept="GuestMtuChanges")
    machine = vm("web", nic("data", binding="bridge", network="br", model="e1000e"), run_strategy="Always", namespace="tenants")
    _, plan = plan_of(NOW, machine, jumbo)
    assert plan["vms"][0]["nics"][0]["guest"] == {
        "mtu": {"from": 1500, "to": 8901},
        "adapter": "New",
        "interfaceName": "Same",
        "queues": {"from": 1, "to": 1},
        "link": "LostAtRestart",
    }
    table = run("plan", "-f", "-", text=documents(NOW, machine, jumbo))[1]
    assert "MTU 1500 to 8901, new adapter, no link during the restart" in table


def test_a_word_that_cannot_be_accepted_is_a_problem():
    machine = vm("web", nic("data", binding="bridge", network="br", model="e1000e"), namespace="tenants")
    _, plan = plan_of(NOW, machine, nad("br", accept="Everything"))
    assert "cannot accept 'Everything'" in plan["problems"][0]["message"]


def test_a_policy_refuses_a_word_that_cannot_be_accepted():
    code, _, err = run("plan", "-f", "-", text=documents(policy("linux", accept=["PropertyNotCarried"])))
    assert (code, "accept" in err) == (2, True)
