"""Invalid input against the real API server.

Every refusal names the field and the remedy.
"""

import pytest

from tests.harness.api import ApiFailure, wait_for

GOOD_POOL = {"nicSelector": {"models": ["82576"]}, "numVfs": 7}
GOOD_POLICY = {"selector": {"networks": ["*"]}}


def refusal(plane, kind, spec):
    with pytest.raises(ApiFailure) as caught:
        plane.api.create(_object(kind, spec), "?dryRun=All&fieldValidation=Strict")
    return str(caught.value)


def _object(kind, spec, name="bad"):
    return {"apiVersion": "vmnic.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nicSelector": {}}, ["spec.nicSelector", "must not be empty", 'models: ["82576"]']),
        ({"nicSelector": {"devices": ["10C9"]}}, ["spec.nicSelector.devices[0]", "^[0-9a-f]{4}$"]),
        ({"nicSelector": {"pciAddresses": ["0b:00.0"]}}, ["spec.nicSelector.pciAddresses[0]"]),
        ({"nicSelector": {"models": ["82576"], "minLinkSpeedMbps": 0}}, ["spec.nicSelector.minLinkSpeedMbps", "1"]),
        ({"numVfs": -1}, ["spec.numVfs", "from 0 to 256"]),
        ({"function": "Physical"}, ["numVfs", "refused with function: Physical"]),
        ({"numVfs": 300}, ["spec.numVfs", '"50%"', '"max"']),
        ({"numVfs": "150%"}, ["spec.numVfs", "from 0 to 256"]),
        ({"numVfs": "all"}, ["spec.numVfs", '"max"']),
        ({"vfRange": "3-0"}, ["spec.vfRange", "the first and the last one such as 0-3"]),
        ({"vfDriver": "vfio"}, ["spec.vfDriver", '"vfio-pci", "kernel"']),
        ({"mtu": 100}, ["spec.mtu", "576"]),
        ({"mtu": 20000}, ["spec.mtu", "9216"]),
        ({"resourceName": "fast"}, ["spec.resourceName"]),
        ({"vf": {"vlanQos": 3}}, ["spec", "vf.vlanQos and vf.vlanProtocol need a vf.vlan"]),
        ({"vf": {"vlan": 0, "vlanQos": 3}}, ["spec", "need a vf.vlan"]),
        ({"vf": {"vlanProtocol": "802.1ad"}}, ["spec", "need a vf.vlan"]),
        ({"rollout": {"maxConcurrent": 0}}, ["spec.rollout.maxConcurrent", "1 or more"]),
        ({"rollout": {"maxConcurrent": "0%"}}, ["spec.rollout.maxConcurrent", '"100%"']),
        ({"rollout": {"maxFailures": 0}}, ["spec.rollout.maxFailures", "1"]),
        ({"vfs": 7}, ['unknown field "spec.vfs"']),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_invalid_pool_is_refused_with_field_and_remedy(plane, change, words):
    message = refusal(plane, "SriovNetworkPool", GOOD_POOL | change)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"selector": {}}, ["spec.selector", "must not be empty", 'networks: ["*"]']),
        ({"selector": {"guestOS": ["macos"]}}, ["spec.selector.guestOS[0]", '"linux", "windows"']),
        ({"datapaths": []}, ["spec.datapaths", "at least 1"]),
        ({"datapaths": ["auto", "vhost"]}, ["spec.datapaths", "either [auto] or a list"]),
        ({"datapaths": ["vhost", "vhost"]}, ["spec.datapaths", "once"]),
        ({"datapaths": ["dpdk"]}, ["spec.datapaths[0]", '"vhost"']),
        ({"datapaths": ["passthrough"]}, ["spec", "passthrough.pool"]),
        ({"sriov": {"pool": "a", "resourceName": "b/c"}}, ["spec.sriov", "not both"]),
        ({"liveMigration": "Always"}, ["spec.liveMigration", '"Required"']),
        ({"emulated": {"model": "virtio"}}, ["spec.emulated.model", '"e1000e"']),
        ({"enforcement": {"action": "Do"}}, ["spec.enforcement.action", '"Audit", "Patch"']),
        ({"enforcement": {"existingVMs": "Restart"}}, ["spec.enforcement.existingVMs", '"WhenStopped"']),
        ({"enforcement": {"maxUnavailable": "0%"}}, ["spec.enforcement.maxUnavailable", "1%"]),
        ({"enforcement": {"window": {"schedule": "0 2 * * *", "duration": "4 hours"}}}, ["spec.enforcement.window.duration"]),
        ({"priority": -1}, ["spec.priority", "0"]),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_invalid_policy_is_refused_with_field_and_remedy(plane, change, words):
    message = refusal(plane, "VmNicPolicy", GOOD_POLICY | change)
    assert all(word in message for word in words), message


PF = "0000:0b:00.0"
LIES = {
    "numVfs": {"pfs": [{"pciAddress": PF, "numVfs": 2**62}]},
    "vfs[0].range": {"pfs": [{"pciAddress": PF, "vfs": [{"range": "0-30000000"}]}]},
    "firstVf": {"pfs": [{"pciAddress": PF, "firstVf": "zz"}]},
    "held[0].by": {"pfs": [{"pciAddress": PF, "held": [{"vf": PF, "by": "x" * 322}]}]},
    "pfs": {"pfs": [{"pciAddress": f"0000:{bus:02x}:00.0"} for bus in range(65)]},
}


@pytest.fixture
def state(plane):
    """A NodeNicState without a node."""
    plane.api.create(_object("NodeNicState", {}, "lying"))
    yield "lying"
    plane.api.delete("NodeNicState", "lying")


@pytest.mark.parametrize(("field", "status"), LIES.items(), ids=LIES)
def test_status_out_of_bounds_is_refused_with_its_field(plane, state, field, status):
    with pytest.raises(ApiFailure) as caught:
        plane.api.merge("NodeNicState", state, {"status": status}, sub="status")
    assert f"{field}: " in str(caught.value)


def test_status_at_its_bounds_is_accepted(plane, state):
    held = [{"vf": PF, "by": f"pod {'n' * 63}/{'p' * 253}"}]
    pf = {"pciAddress": PF, "numVfs": 1024, "attempt": 2**31 - 1, "vfs": [{"range": "0-999"}], "held": held}
    plane.api.merge("NodeNicState", state, {"status": {"observedGeneration": 2**53 - 1, "pfs": [pf]}}, sub="status")


@pytest.mark.parametrize("vf", [{"vlan": 0}, {"vlan": 0, "vlanQos": 0}, {"vlan": 5, "vlanQos": 3, "vlanProtocol": "802.1ad"}])
def test_pool_with_a_vlan_is_accepted(plane, vf):
    plane.api.create(_object("SriovNetworkPool", GOOD_POOL | {"vf": vf}), "?dryRun=All&fieldValidation=Strict")


@pytest.mark.parametrize("spec", [{"numVfs": 7}, {"nicSelector": {"models": ["82576"]}}], ids=["no nicSelector", "no numVfs"])
def test_pool_needs_a_selector_and_a_number(plane, spec):
    message = refusal(plane, "SriovNetworkPool", spec)
    assert "Required value" in message or "numVfs is needed with function: Virtual" in message


@pytest.mark.parametrize(
    ("before", "after"), [("vmnic.dev/a", "vmnic.dev/b"), ("vmnic.dev/a", None)], ids=["changed", "taken away"]
)
def test_resource_name_is_immutable(plane, before, after):
    selector = {"models": ["82576"]}
    body = _object(
        "SriovNetworkPool",
        {"nicSelector": selector, "numVfs": 1, "nodeSelector": {"no": "node"}, "resourceName": before},
        "named",
    )
    plane.api.create(body)
    try:
        with pytest.raises(ApiFailure, match=r"spec.resourceName.*immutable.*create a new pool"):
            plane.api.merge("SriovNetworkPool", "named", {"spec": {"resourceName": after}})
    finally:
        plane.api.delete("SriovNetworkPool", "named")
        wait_for("it is gone", lambda: plane.api.get("SriovNetworkPool", "named") is None)


@pytest.mark.parametrize("kind", ["snp.spec", "vnp.spec", "nicst.status"])
def test_kubectl_explains_the_kinds_by_their_short_names(plane, kind):
    wait_for("discovery knows the kinds", lambda: "snp" in plane.kubectl("api-resources", "--api-group=vmnic.dev", check=False))
    text = plane.kubectl("explain", kind)
    assert "<no description>" not in text
    assert "DESCRIPTION" in text
