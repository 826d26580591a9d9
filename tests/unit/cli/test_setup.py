"""Checks of prerequisites by `kubectl vmnic status`."""

import copy

import pytest

from tests.builders.vm import policy
from vmnic.api.crd import KINDS, render_crd
from vmnic.cli.objects import Objects
from vmnic.cli.offline import decide_all
from vmnic.cli.setup import Setup, setup_lines

DEFINITIONS = {f"{kind.PLURAL}.vmnic.dev": render_crd(kind) for kind in KINDS}
TRUSTED = {"webhooks": [{"name": "virtualmachines.vmnic.dev", "clientConfig": {"caBundle": "x"}}]}
ALL = Setup(daemons=("kube-multus-ds", "example/sriov-cni:v2"), definitions=DEFINITIONS, webhook=TRUSTED)
KUBEVIRT = {"kind": "KubeVirt", "metadata": {"name": "kubevirt", "namespace": "kubevirt"}}
WHOLE = {
    "kind": "SriovNetworkPool",
    "metadata": {"name": "whole"},
    "spec": {"nicSelector": {"models": ["82599"]}, "function": "Physical"},
}
FAST = {"kind": "SriovNetworkPool", "metadata": {"name": "fast"}, "spec": {"nicSelector": {"models": ["82576"]}, "numVfs": 7}}


def node(name="n1", *, modules=("vhost_net", "tun", "vfio_pci"), refused=(), spec=None, problem=None):
    pf = {"pciAddress": "0000:0b:00.0", "vendor": "8086", "device": "10fb"} | ({"problem": problem} if problem else {})
    status = {"bootID": "b", "host": {"modules": list(modules), "refused": list(refused)}, "pfs": [pf]}
    return {"kind": "NodeNicState", "metadata": {"name": name}, "spec": {"synced": True, "pfs": spec or []}, "status": status}


def kubevirt(version="v1.9.0", **configuration):
    return KUBEVIRT | {"spec": {"configuration": configuration}, "status": {"observedKubeVirtVersion": version}}


def lines(*raws, setup=ALL):
    objects = Objects()
    for raw in raws:
        objects.add(raw)
    return {line.what: line for line in setup_lines(objects, decide_all(objects, offline=False), setup)}


def test_a_module_that_an_agent_cannot_see_is_no_fault():
    raw = node(modules=("vhost_net", "vfio_pci"))
    raw["status"]["host"]["modulesUnknown"] = ["tun"]
    line = lines(raw)["module tun"]
    assert (line.ok, line.known, "n1" in line.text) == (True, False, True)


def test_prerequisites_that_are_met_are_ok():
    found = lines(kubevirt("v1.8.2"), FAST, node())
    assert {what: line.ok for what, line in found.items()} == dict.fromkeys(
        ["CRDs", "webhook", "modules", "KubeVirt", "Multus", "sriov-cni"], True
    )  # fmt: skip


@pytest.mark.parametrize(
    ("raws", "setup", "what", "says"),
    [
        ([], Setup(definitions={}), "CRDs", "not there: SriovNetworkPool"),
        ([], Setup(webhook={}), "webhook", "missing"),
        ([], Setup(webhook={"webhooks": [{"name": "v", "clientConfig": {}}]}), "webhook", "v has no caBundle"),
        ([node(modules=["tun"], refused=["vhost_net: EPERM"])], ALL, "module vhost_net", "missing on n1 (vhost_net: EPERM)"),
        ([node(problem={"reason": "ForeignOwner", "message": "NetworkManager"})], ALL, "foreign owners", "n1 0000:0b:00.0"),
        ([], ALL, "KubeVirt", "there is no KubeVirt resource"),
        ([kubevirt(), FAST], Setup(daemons=()), "Multus", "no DaemonSet installs it"),
        ([kubevirt(), FAST], Setup(daemons=("multus",)), "sriov-cni", "VMs with VFs of fast"),
        ([kubevirt(), FAST], ALL, "network-resources-injector", "missing"),
        ([kubevirt(), policy(datapaths=["macvtap"])], ALL, "binding plugin macvtap", "not registered"),
        ([kubevirt(), WHOLE], ALL, "feature gate HostDevices", "off"),
    ],
)  # fmt: skip
def test_a_missing_prerequisite_is_named_with_a_next_step(raws, setup, what, says):
    line = lines(*raws, setup=setup)[what]
    assert (line.ok, says in line.text, bool(line.remedy)) == (False, True, True), line


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"observedKubeVirtVersion": "v1.9.0", "targetKubeVirtVersion": "v1.9.0"}, "1.9, network binding plugins"),
        ({"observedKubeVirtVersion": "v1.8.2", "targetKubeVirtVersion": "v1.9.0"}, "1.8, 1.9 is being installed, network"),
        ({"targetKubeVirtVersion": "v1.9.0"}, "1.9 is being installed, network"),
        ({"observedKubeVirtVersion": "v1.9.0", "targetKubeVirtVersion": "v1.8.2"}, "1.9, network"),
        ({}, "1.8 assumed, because its status names no version, network"),
        ({"observedKubeVirtVersion": "devel"}, "1.8 assumed, because its status names no version, network"),
    ],
)
def test_only_a_version_that_is_named_is_claimed(status, says):
    assert lines(KUBEVIRT | {"status": status})["KubeVirt"].text.startswith(says)


def test_an_unneeded_prerequisite_is_not_checked():
    assert set(lines(kubevirt(), setup=Setup(daemons=()))) == {"KubeVirt"}


def test_an_older_crd_is_detected_by_its_missing_fields():
    older = copy.deepcopy(DEFINITIONS)
    spec = older["sriovnetworkpools.vmnic.dev"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["numVfs"]
    assert "SriovNetworkPool spec.numVfs" in lines(setup=Setup(definitions=older))["CRDs"].text


def test_the_entry_for_whole_nics_is_printed_ready_to_paste():
    spec = [
        {"pciAddress": "0000:0b:00.0", "pool": "whole", "function": "Physical", "groups": [{"pool": "whole", "resource": "r"}]}
    ]
    found = lines(kubevirt(), WHOLE, node(spec=spec))["permittedHostDevices vmnic.dev/whole"]
    assert '\n- {pciVendorSelector: "8086:10fb", resourceName: vmnic.dev/whole, externalResourceProvider: true}' in found.remedy


def test_a_forbidden_object_is_neither_present_nor_missing():
    found = lines(kubevirt("v1.8.2"), FAST, setup=Setup(refusals=("you may not read daemonsets",)))
    assert {what: (line.ok, line.known) for what, line in found.items()} == {"rights": (True, False), "KubeVirt": (True, True)}
