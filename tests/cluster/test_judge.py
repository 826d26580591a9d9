"""KubeVirt accepts each patch of any VM by any policies, and the NIC then has the reported datapath.

`make fuzz-vm` runs the same test with more scenes. A failure names its seed.
"""

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import jsonpatch
import pytest

from tests.builders.decide import collect, patches
from tests.builders.scene import NAMESPACE, NETWORKS, PREFERENCES, TYPES, scene
from tests.harness.api import Api, ApiFailure, wait_for
from vmnic.cli.offline import decide_all

COUNT = int(os.environ.get("VMNIC_FUZZ_COUNT", "2000"))
FIRST = int(os.environ.get("VMNIC_FUZZ_SEED", "1"))
_VIRTIO = (None, "virtio")


class Judge:
    """Asks KubeVirt whether it accepts a VM or a patch."""

    def __init__(self, api):
        self.api = api

    def create(self, machine):
        """Create a VM as a dry run."""
        return self.api.create(machine, "?dryRun=All&fieldValidation=Strict")

    def update(self, machine, others, name):
        """Store a VM that does not run under another name, and patch it as a dry run."""
        spec = {key: value for key, value in machine["spec"].items() if key != "running"} | {"runStrategy": "Halted"}
        self.api.create(machine | {"metadata": machine["metadata"] | {"name": name}, "spec": spec})

        def patched():
            template = self.api.get("VirtualMachine", name, NAMESPACE)["spec"]["template"]
            patch = patches(machine | {"spec": machine["spec"] | {"template": template}}, *others)["web"]
            return self.api.patch("VirtualMachine", name, patch, NAMESPACE, "?dryRun=All")

        try:
            # virt-controller sorts the networks at any time, and the patch then fails at its own test of the name.
            return wait_for("the VM is patched", patched)
        finally:
            self.api.delete("VirtualMachine", name, NAMESPACE)


@pytest.fixture(scope="module")
def judge(plane):
    """KubeVirt's own webhooks, in a namespace that vmnic's webhook does not see."""
    labels = {"vmnic.dev/system": ""}
    plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    for body in (*TYPES, *PREFERENCES):
        plane.api.create({"apiVersion": "instancetype.kubevirt.io/v1beta1", **body})
    yield Judge(Api(plane.plane.server, plane.plane.pki / "ca.crt", "admin-token"))
    plane.api.delete("Namespace", NAMESPACE)


def devices_of(machine):
    return machine["spec"]["template"]["spec"]["domain"]["devices"]


def nics_of(machine):
    """Return what a patch may change in a VM.

    virt-controller sorts the networks of a stored VM, and removes NICs with `state: absent` from one that does not run.
    """
    devices = devices_of(machine)
    absent = {one["name"] for one in devices.get("interfaces", []) if one.get("state") == "absent"}
    lists = (devices.get("interfaces", []), machine["spec"]["template"]["spec"].get("networks", []))
    left = [sorted((one for one in entries if one["name"] not in absent), key=lambda one: one["name"]) for entries in lists]
    return [*left, *(devices.get(key) for key in ("hostDevices", "networkInterfaceMultiqueue", "autoattachPodInterface"))]


def datapath_of(machine, name, preferred):
    """Read a NIC's datapath from KubeVirt's object, without any code of vmnic."""
    devices = devices_of(machine)
    if any(device["name"] == name and device["deviceName"] == "vmnic.dev/whole" for device in devices.get("hostDevices", [])):
        return ("passthrough", None)
    # With an empty list, KubeVirt adds one NIC by itself.
    interfaces = devices.get("interfaces") or [{"name": "default", "bridge": {}}]
    interface = next(one for one in interfaces if one["name"] == name)
    if "sriov" in interface:
        return ("sriov", None)
    model = interface.get("model") or preferred or "virtio"
    if interface.get("binding", {}).get("name") == "macvtap":
        return ("macvtap", model)
    return ("vhost" if model == "virtio" else "emulated", model)


def wrong_entry(interface, network):
    name = interface["name"]
    multus = network.get("multus", {}).get("networkName", "").rpartition("/")[2]
    if "sriov" in interface and "pod" in network:
        yield f"{name}: sriov on the pod network"
    if "sriov" in interface and "model" in interface:
        yield f"{name}: a model on sriov"
    if interface.get("binding", {"name": "macvtap"}).get("name") != "macvtap":
        yield f"{name}: an unregistered plugin"
    if multus and multus not in NETWORKS:
        yield f"{name}: a network that is not there"


def wrongly_accepted(before, after, changed):
    """Yield faults of the patch that KubeVirt accepts although they cannot work."""
    devices, spec = devices_of(after), after["spec"]["template"]["spec"]
    networks = {network["name"]: network for network in spec.get("networks", [])}
    macs = [interface["macAddress"].lower() for interface in devices.get("interfaces", []) if "macAddress" in interface]
    for interface in devices.get("interfaces", []):
        if interface["name"] in changed:
            yield from wrong_entry(interface, networks[interface["name"]])
    if len(set(macs)) < len(macs):
        yield "the same MAC address twice"
    if any(int(mac[:2], 16) & 1 for mac in macs):
        yield "a multicast MAC address"
    if changed and devices.get("networkInterfaceMultiqueue") and not devices_of(before).get("networkInterfaceMultiqueue"):
        virtio = [one for one in devices.get("interfaces", [{}]) if "sriov" not in one and one.get("model") in _VIRTIO]
        if not virtio:
            yield "several queues and no NIC that has them"


def check(judge, seed):
    """Return the changed NICs with their datapaths, or why the VM is invalid."""
    documents = scene(seed)
    machine = documents[0]
    try:
        judge.create(machine)
    except ApiFailure as error:
        return ["illegal" if error.status == 422 else f"answered {error.status}"]
    objects = collect(*documents)
    (decision,) = decide_all(objects, offline=False).vms
    patch = patches(*documents)["web"]
    if not patch:
        return ["nothing to do"]
    try:
        stored = judge.create(jsonpatch.apply_patch(machine, patch))
        updated = judge.update(machine, documents[1:], f"s{seed}")
    except ApiFailure as error:
        raise AssertionError(f"seed {seed}: KubeVirt refuses the patch: {error.body}\n{patch}") from error
    assert nics_of(updated) == nics_of(stored), f"seed {seed}: an update has another result"
    preferred = {"win": "e1000e", "lin": "virtio"}.get(machine["spec"].get("preference", {}).get("name"))
    said = {nic.nic.name: (nic.wanted.datapath.value, nic.wanted.model) for nic in decision.nics if nic.action == "Patch"}
    found = {name: datapath_of(stored, name, preferred) for name in said}
    assert found == said, f"seed {seed}: the NICs are not what was said\n{patch}"
    faults = list(wrongly_accepted(machine, stored, said))
    assert not faults, f"seed {seed}: {faults}\n{patch}"
    again = patches(stored, *documents[1:])["web"]
    assert again == [], f"seed {seed}: decided again, {again}"
    return [f"{nic.nic.present.datapath.value} to {said[nic.nic.name][0]}" for nic in decision.nics if nic.nic.name in said]


@pytest.mark.timeout(3000)
def test_kubevirt_accepts_every_patch_and_decisions_are_stable(judge):
    print(f"seeds {FIRST} to {FIRST + COUNT - 1}")
    with ThreadPoolExecutor(6) as executor:
        results = Counter(
            what for one in executor.map(lambda seed: check(judge, seed), range(FIRST, FIRST + COUNT)) for what in one
        )
    print("\n".join(f"{count:6} {what}" for what, count in sorted(results.items())))
    assert results["illegal"] < COUNT * 0.2
    assert not [what for what in results if what.startswith("answered")]
    moves = {what for what in results if " to " in what}
    assert {f"{one} to {other}" for one in ("emulated", "vhost", "sriov", "macvtap") for other in ("vhost", "sriov")} - {
        "sriov to sriov"
    } <= moves


def test_kubevirt_refuses_invalid_vms(judge):
    machine = scene(random.Random(0).randrange(100))[0]
    devices_of(machine)["interfaces"] = [{"name": "a", "bridge": {}, "model": "vmxnet3"}]
    machine["spec"]["template"]["spec"]["networks"] = [{"name": "a", "pod": {}}]
    with pytest.raises(ApiFailure, match="vmxnet3"):
        judge.create(machine)
