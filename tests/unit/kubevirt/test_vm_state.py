"""What a VmNicState says of a VM beside its NICs' verdicts."""

import msgspec
import pytest

from tests.builders.decide import collect
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, vm
from vmnic.api.vm_state import VmStatus
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import plan_vm
from vmnic.kubevirt.vm_state import render_status, should_publish

VF = [nad("fast", cni="sriov", resource="vmnic.dev/fast"), pool(), node_state()]


def decided(*objects):
    found = collect(*objects)
    made = decide_all(found, offline=False)
    return found, made


def on_vf(*names):
    return vm("vf", *(nic(name, binding="sriov", network="fast") for name in names), run_strategy="Halted")


def test_it_has_the_warnings_of_the_explanation():
    objects, made = decided(on_vf("data"), policy(datapaths=["sriov"]), kubevirt(version="v1.9.0"), *VF)
    status = render_status(made.vms[0], None, None)
    explained = plan_vm(objects, made, made.vms[0])["nics"][0]["warnings"]
    assert [one["reason"] for one in status["nics"][0]["warnings"]] == ["NetResourceInjectorMissing"]
    assert [(one["reason"], one["message"][:160]) for one in explained] == [
        (one["reason"], one["message"]) for one in status["nics"][0]["warnings"]
    ]
    read = msgspec.convert(status, VmStatus).nics[0].warnings
    assert [msgspec.to_builtins(one) for one in read] == status["nics"][0]["warnings"]
    assert should_publish(made.vms[0])


@pytest.mark.parametrize("count", [4, 7])
def test_warnings_are_kept_longest_of_all_texts(count):
    given = on_vf(*(f"nic-{number}-with-a-long-name" for number in range(count)))
    _, made = decided(given, policy(datapaths=["sriov"]), kubevirt(version="v1.9.0"), *VF)
    status = render_status(made.vms[0], None, None)
    assert len(msgspec.json.encode(status)) <= 2048
    assert "message" not in status["nics"][0]
    assert [one["reason"] for nic in status["nics"] for one in nic["warnings"]] == ["NetResourceInjectorMissing"] * count
    assert all(("message" in one) is (count == 4) for nic in status["nics"] for one in nic["warnings"])


def test_a_nic_without_warnings_has_no_list_of_them():
    _, made = decided(on_vf("data"), policy(datapaths=["sriov"]), kubevirt(), *VF)
    assert "warnings" not in render_status(made.vms[0], None, None)["nics"][0]
