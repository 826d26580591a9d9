"""Defaults that KubeVirt takes from the images of a VM's disks, decided as `kubectl vmnic plan -f` does."""

import pytest

from tests.builders.decide import collect, decision, first
from tests.builders.vm import kubevirt, nic, policy, vm

AUTO = policy(existing="Immediately")
ARCHITECTURE = "template.kubevirt.io/architecture"
PREFERRED = "instancetype.kubevirt.io/default-preference"
TYPED = "instancetype.kubevirt.io/default-instancetype"


def image(kind="DataSource", name="win", namespace="images", source=None, **labels):
    """Return an image of a disk. Labels are given as `architecture`, `preference`, `preference_kind` and the like."""
    names = {"architecture": ARCHITECTURE, "preference": PREFERRED, "preference_kind": f"{PREFERRED}-kind"}
    names |= {"instancetype": TYPED, "instancetype_kind": f"{TYPED}-kind"}
    meta = {"name": name, "namespace": namespace, "labels": {names[word]: value for word, value in labels.items()}}
    return {
        "apiVersion": "v1" if kind == "PersistentVolumeClaim" else "cdi.kubevirt.io/v1beta1",
        "kind": kind,
        "metadata": meta,
        "spec": {"source": source} if source else {},
    }


GOLDEN = {"sourceRef": {"kind": "DataSource", "name": "win", "namespace": "images"}}


def machine(template=GOLDEN, *, volume=None, os="windows", architecture=None, model=None, **spec):
    """Return a stopped VM whose disk `root` comes from a DataVolumeTemplate."""
    extra = {"model": model} if model else {}
    made = vm("web", nic(**extra), os=os, run_strategy="Halted", **spec)
    templates = [{"metadata": {"name": "disk"}, "spec": template}] if template else []
    made["spec"]["dataVolumeTemplates"] = templates
    made["spec"]["template"]["spec"] |= {"volumes": [{"name": "root", **(volume or {"dataVolume": {"name": "disk"}})}]}
    made["spec"]["template"]["spec"] |= {"architecture": architecture} if architecture else {}
    return made


def cluster(architecture):
    made = kubevirt()
    made["status"]["defaultArchitecture"] = architecture
    return made


def architecture_of(*documents):
    found = decision(*documents, AUTO, offline=True).vm.architecture
    return (found.name, found.source)


@pytest.mark.parametrize(
    ("documents", "name", "source"),
    [
        ([machine(architecture="arm64"), image(architecture="s390x"), cluster("amd64")], "arm64", "spec.template.spec.architecture"),
        ([machine(), image(architecture="s390x"), cluster("arm64")], "s390x", f"label {ARCHITECTURE} of DataSource images/win"),
        (
            [machine(), image(source={"dataSource": {"name": "w", "namespace": "old"}}), image(name="w", namespace="old", architecture="arm64")],
            "arm64", f"label {ARCHITECTURE} of DataSource old/w",
        ),
        ([machine({"sourceRef": {"kind": "DataSource", "name": "own"}}), image(name="own", namespace="tenants", architecture="arm64")],
            "arm64", f"label {ARCHITECTURE} of DataSource tenants/own"),
        ([machine(), image(), cluster("arm64")], "arm64", "status.defaultArchitecture of the KubeVirt resource"),
        ([machine(), image(architecture="riscv64"), cluster("arm64")], "arm64", "status.defaultArchitecture of the KubeVirt resource"),
        ([machine(None), cluster("s390x")], "s390x", "status.defaultArchitecture of the KubeVirt resource"),
        ([machine({"source": {"blank": {}}})], "amd64", "KubeVirt's default"),
        ([machine(None), kubevirt()], "amd64", "KubeVirt's default"),
    ],
    ids=[
        "its own", "the DataSource before the cluster", "a DataSource that stands for another", "a DataSource of its namespace",
        "a DataSource without the label", "a label that KubeVirt does not take", "the cluster", "no DataSource", "an old KubeVirt",
    ],
)  # fmt: skip
def test_the_architecture_comes_from_the_first_source(documents, name, source):
    assert architecture_of(*documents) == (name, source)


def test_a_missing_data_source_blocks_only_an_emulated_model():
    blocked = first(machine(), AUTO, offline=True)
    assert (blocked.verdict, blocked.reason) == ("Blocked", "InputUnreadable")
    assert "DataSource images/win is not given" in blocked.message
    assert "spec.template.spec.architecture" in blocked.message
    assert first(machine(os="linux", model="e1000e"), AUTO, offline=True).verdict == "Change"
    assert first(machine(model="e1000e"), AUTO, offline=True).verdict == "Compliant"
    assert first(machine(), image(), AUTO, offline=True).wanted.model == "e1000e"


def test_a_manifest_keeps_the_architecture_of_the_stored_vm():
    stored, given = collect(machine(architecture="arm64")), collect(machine())
    (made,) = stored.overlaid(given).machines.values()
    assert made.spec.template.spec.architecture == "arm64"
    (made,) = given.overlaid(stored).machines.values()
    assert made.spec.template.spec.architecture == "arm64"


@pytest.mark.parametrize("name", ["arm64", "s390x", "ppc64le"])
def test_only_virtio_exists_beyond_x86(name):
    (windows,) = decision(machine(architecture=name), AUTO).nics
    assert (windows.verdict, windows.reason) == ("Blocked", "NotOnArchitecture")
    # Such a VM does not start, so its present model does not count as wanted either.
    (emulated,) = decision(machine(architecture=name, model="e1000e"), AUTO).nics
    assert (emulated.verdict, emulated.reason) == ("Blocked", "NotOnArchitecture")
    (other,) = decision(
        machine(architecture=name, model="e1000e"), policy(datapaths=["emulated", "vhost"], existing="Immediately")
    ).nics
    assert (other.verdict, other.wanted.model) == ("Change", "virtio")


def inferring(word="preference", **reference):
    return {word: {"inferFromVolume": "root", **reference}}


def preference(name="fast", kind="VirtualMachineClusterPreference", namespace=None):
    meta = {"name": name, "labels": {"instancetype.kubevirt.io/os-type": "windows"}} | (
        {"namespace": namespace} if namespace else {}
    )
    return {"kind": kind, "metadata": meta, "spec": {"devices": {"preferredInterfaceModel": "e1000"}}}


CLAIM = {"persistentVolumeClaim": {"claimName": "claim"}}
OWN_CLAIM = image("PersistentVolumeClaim", "claim", "tenants", preference="fast")


@pytest.mark.parametrize(
    ("template", "volume", "images"),
    [
        (GOLDEN, None, [image(preference="fast")]),
        (GOLDEN, None, [image(source={"pvc": {"name": "p", "namespace": "x"}}), image("PersistentVolumeClaim", "p", "x", preference="fast")]),
        ({"source": {"pvc": {"name": "p", "namespace": "x"}}}, None, [image("PersistentVolumeClaim", "p", "x", preference="fast")]),
        (None, CLAIM, [OWN_CLAIM]),
        (None, {"dataVolume": {"name": "claim"}}, [OWN_CLAIM]),
        (None, {"dataVolume": {"name": "claim"}}, [image("DataVolume", "claim", "tenants", preference="fast")]),
        (None, {"dataVolume": {"name": "claim"}}, [image("DataVolume", "claim", "tenants", source={"pvc": {"name": "p"}}), image("PersistentVolumeClaim", "p", "tenants", preference="fast")]),
    ],
    ids=["DataSource", "DataSource's claim", "template's claim", "claim", "claim of a removed DataVolume", "DataVolume", "DataVolume's claim"],
)  # fmt: skip
def test_a_preference_is_inferred_from_a_volume(template, volume, images):
    made = machine(template, volume=volume, os=None, **inferring())
    (one,) = decision(made, AUTO, preference(), *images, offline=True).nics
    assert (one.nic.present.model, one.reason) == ("e1000", None)


def test_an_inferred_preference_may_be_of_the_namespace():
    labels = image(preference="fast", preference_kind="VirtualMachinePreference")
    own = preference(kind="VirtualMachinePreference", namespace="tenants")
    assert first(machine(os=None, **inferring()), AUTO, labels, own, offline=True).nic.present.model == "e1000"


def test_an_inferred_instancetype_gives_the_vcpus():
    made = machine(os="linux", **inferring("instancetype"))
    made["spec"]["template"]["spec"]["domain"].pop("cpu")
    kind = {"kind": "VirtualMachineClusterInstancetype", "metadata": {"name": "big"}, "spec": {"cpu": {"guest": 12}}}
    assert decision(made, AUTO, kind, image(instancetype="big"), offline=True).vm.vcpus == 12


@pytest.mark.parametrize(
    ("template", "volume", "images", "words"),
    [
        (GOLDEN, None, [], "preference is inferred from volume root, and DataSource images/win is not given"),
        (GOLDEN, None, [image(source={"pvc": {"name": "p", "namespace": "x"}})], "PersistentVolumeClaim x/p is not given"),
        (GOLDEN, None, [image()], "have no label instancetype.kubevirt.io/default-preference"),
        (None, CLAIM, [], "PersistentVolumeClaim tenants/claim is not given"),
        (None, {"dataVolume": {"name": "disk"}}, [], "DataVolume tenants/disk is not given"),
        (None, {"containerDisk": {"image": "x"}}, [], "have no label"),
        ({"sourceRef": {"kind": "Other", "name": "win"}}, None, [], "have no label"),
    ],
)  # fmt: skip
def test_what_an_inferred_preference_lacks_is_named(template, volume, images, words):
    one = first(machine(template, volume=volume, os=None, architecture="amd64", **inferring()), AUTO, *images, offline=True)
    assert (one.verdict, one.reason) == ("Blocked", "PreferenceUnknown")
    assert words in one.message
    assert "use a preference" not in one.message


def test_a_preference_that_cannot_be_inferred_may_be_dropped():
    made = machine(os="linux", model="e1000", **inferring(inferFromVolumeFailurePolicy="Ignore"))
    assert first(made, AUTO, image(), offline=True).verdict == "Change"
