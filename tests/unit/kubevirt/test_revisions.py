"""Preferences and instancetypes are read as a VM keeps them."""

import pytest

from tests.builders.decide import collect, decide, decision
from tests.builders.vm import instancetype, kubevirt, nad, nic, node_state, policy, pool, preference, revision, vm
from vmnic.cli.objects import MalformedObjectError
from vmnic.policy.reasons import Reason

LIVE = preference(model="virtio")
KEPT = revision("kept", preference(model="e1000e"))
TYPE = {"kind": "VirtualMachineInstancetype", "name": "small"}
TO_VHOST = policy(datapaths=["vhost"], existing="Immediately")


def keeping(*, spec=None, status=None, noted="linux", name="linux", nics=(), os="linux", field="preference", **own):
    """Return a VM with a preference that the spec or the status names a revision of."""
    kind = "VirtualMachinePreference" if field == "preference" else "VirtualMachineInstancetype"
    reference = {"kind": kind, "name": name, **({"revisionName": spec} if spec else {})}
    machine = vm("web", *nics, os=os, **{field: reference}, **own)
    if status:
        machine["status"] = {f"{field}Ref": {"name": noted, "controllerRevisionRef": {"name": status}}}
    return machine


def model(*documents, **options):
    """Return the model of the only NIC, or the reason that blocks it."""
    found = decision(TO_VHOST, *documents, **options).nics[0]
    return found.reason.value if found.reason is not None else found.nic.present.model


@pytest.mark.parametrize(
    ("machine", "documents", "expected"),
    [
        (keeping(), [LIVE, KEPT], "virtio"),
        (keeping(spec="kept"), [LIVE, KEPT], "e1000e"),
        (keeping(status="kept"), [LIVE, KEPT], "e1000e"),
        (keeping(spec="kept", status="other"), [LIVE, KEPT], "e1000e"),
        (keeping(spec="kept"), [KEPT], "e1000e"),
        (keeping(spec="kept", name="renamed"), [KEPT], "e1000e"),
        (keeping(status="kept", noted="", name="new"), [preference("new", model="virtio"), KEPT], "virtio"),
        (keeping(status="gone", name="new"), [preference("new", model="virtio")], "virtio"),
        (keeping(spec="gone"), [LIVE], "PreferenceUnknown"),
        (keeping(status="gone"), [LIVE], "PreferenceUnknown"),
        (keeping(status="kept"), [LIVE, revision("kept", instancetype("linux"))], "PreferenceUnknown"),
        (keeping(spec="kept"), [LIVE, revision("kept", preference(model="e1000e"), labelled=False)], "PreferenceUnknown"),
        (keeping(), [], "PreferenceUnknown"),
        (keeping(spec="kept"), [LIVE, revision("kept", preference(model="e1000e", cluster=True))], "e1000e"),
        (keeping(spec="kept"), [LIVE, KEPT | {"data": KEPT["data"] | {"apiVersion": "instancetype.kubevirt.io/v1alpha2"}}], "e1000e"),
    ],
    ids=[
        "no revision", "of the spec", "of the status", "the spec wins", "the live object is gone", "the spec's needs no name", "the status' is of another",
        "the status' was of another", "the spec's is missing", "the status' is missing", "an instancetype", "no revision of KubeVirt's",
        "no object at all", "a cluster-wide object", "an earlier version",
    ],
)  # fmt: skip
def test_the_model_is_that_of_the_kept_preference(machine, documents, expected):
    assert model(machine, *documents) == expected


@pytest.mark.parametrize("offline", [True, False])
def test_the_message_names_the_missing_revision(offline):
    found = decision(TO_VHOST, keeping(spec="gone"), LIVE, offline=offline)
    word = "is not given" if offline else "does not exist"
    assert f"preference linux: ControllerRevision gone {word}" in found.nics[0].message
    assert [(one.reason, one.message) for one in found.vm.problems] == [("PreferenceUnknown", found.nics[0].message)]


VIRTIO = nic(model="virtio")


@pytest.mark.parametrize(
    ("machine", "rule", "reason"),
    [
        (keeping(spec="gone"), TO_VHOST, "PreferenceUnknown"),
        (keeping(spec="gone", nics=[VIRTIO]), TO_VHOST, None),
        (keeping(spec="gone", nics=[VIRTIO], os=None), TO_VHOST, None),
        (keeping(spec="gone", nics=[VIRTIO], os=None), policy(), "PreferenceUnknown"),
        (keeping(spec="gone", nics=[VIRTIO]), policy(), None),
        (keeping(spec="gone", nics=[VIRTIO]), policy(networkPressure="High"), "PreferenceUnknown"),
        (keeping(spec="gone", nics=[VIRTIO]), policy(multiqueue={"mode": "Never"}), "PreferenceUnknown"),
        (keeping(spec="gone", nics=[nic(model="e1000e")]), policy(datapaths=["emulated"], networkPressure="High"), None),
        (keeping(spec="gone", field="instancetype"), TO_VHOST, None),
        (keeping(spec="gone", field="instancetype"), policy(multiqueue={"mode": "Always"}), "PreferenceUnknown"),
        (keeping(spec="gone", field="instancetype"), policy(multiqueue={"mode": "Never"}), None),
    ],
    ids=[
        "a model", "a model of its own", "the system does not matter", "auto needs the system", "auto knows the system", "multiqueue", "multiqueue, off",
        "no queues", "vCPUs do not matter", "vCPUs for queues", "no vCPUs for one queue",
    ],
)  # fmt: skip
def test_an_unknown_preference_holds_only_what_it_decides(machine, rule, reason):
    found = decision(machine, rule)
    assert found.nics[0].reason == reason
    assert len(found.vm.problems) == 1


def test_a_vms_own_multiqueue_switch_needs_no_preference():
    machine = keeping(spec="gone", nics=[VIRTIO])
    machine["spec"]["template"]["spec"]["domain"]["devices"]["networkInterfaceMultiqueue"] = True
    assert decision(machine, policy(networkPressure="High")).nics[0].verdict == "Compliant"


def test_an_unknown_instancetype_holds_devices_on_vfio():
    rule = policy(datapaths=["passthrough"], passthrough={"pool": "whole"})
    machine = keeping(spec="gone", field="instancetype", nics=[nic("data", binding="bridge", network="br", model="virtio")])
    whole = pool("whole", function="Physical"), node_state(pool="whole", vfs=0, function="Physical")
    others = rule, nad("br"), kubevirt(permitted=["vmnic.dev/whole"]), *whole
    assert decision(machine, *others).nics[0].reason is Reason.PREFERENCE_UNKNOWN
    assert decision(machine, *others, revision("gone", instancetype("small"))).nics[0].wanted.datapath == "passthrough"


def test_vcpus_and_multiqueue_come_from_the_kept_objects():
    machine = keeping(status="p")
    machine["spec"]["instancetype"] = TYPE
    machine["status"]["instancetypeRef"] = {"name": "small", "controllerRevisionRef": {"name": "t"}}
    kept = [revision("p", preference(multiqueue=True)), revision("t", instancetype(cpus=6))]
    found = decision(TO_VHOST, machine, LIVE, instancetype(cpus=2), *kept)
    assert found.nics[0].nic.present.queues == 6


def test_the_live_label_still_names_the_guest_system():
    # KubeVirt's copy has no labels.
    kept = revision("kept", preference(model="virtio"))
    assert decision(policy(), keeping(spec="kept", os=None), preference(os="linux"), kept).vm.guest_os == "linux"
    kept["data"]["spec"]["annotations"] = {"vm.kubevirt.io/os": "windows"}
    assert decision(policy(), keeping(spec="kept", os=None), preference(os="linux"), kept).vm.guest_os == "windows"


def test_revisions_of_other_programs_are_skipped():
    other = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "ds-1", "labels": {"app": "x"}}}
    objects = collect(other | {"data": {"spec": {"template": 5}}}, other | {"data": None}, KEPT)
    assert (objects.skipped, list(objects.revisions)) == (2, [("tenants", "kept")])


@pytest.mark.parametrize(
    "data",
    [{"apiVersion": "v1", "kind": "Secret"}, KEPT["data"] | {"spec": 5}, KEPT["data"] | {"apiVersion": "instancetype.kubevirt.io/v9"}, {}],
)  # fmt: skip
def test_a_revision_without_a_readable_object_is_unreadable(data):
    with pytest.raises(MalformedObjectError, match="ControllerRevision tenants/kept: "):
        collect(KEPT | {"data": data})


def test_revisions_are_looked_for_in_the_vms_namespace():
    elsewhere = revision("kept", preference(model="e1000e"))
    elsewhere["metadata"]["namespace"] = "other"
    (found,) = decide(TO_VHOST, keeping(spec="kept"), LIVE, elsewhere).vms
    assert found.nics[0].reason is Reason.PREFERENCE_UNKNOWN
