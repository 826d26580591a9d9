"""Plans of manifests as users of KubeVirt, Harvester and OpenShift write them, against a table of what the docs promise.

`manifests/FAMILY.yaml` has VMs and what they need, `manifests/expected/FAMILY.yaml` the plan of each VM. The family `domains`
has policies for the libvirt domains of other tests.
"""

import functools
import pathlib

import jsonpatch
import pytest
import yaml

from tests.builders.decide import collect
from vmnic.cli.files import read_files
from vmnic.cli.objects import shown_name
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan

MANIFESTS = pathlib.Path(__file__).parent / "manifests"
DOMAINS = pathlib.Path(__file__).parents[1] / "libvirt" / "domains"
NETWORKS = DOMAINS.parent / "networks"
EXPECTED = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((MANIFESTS / "expected").glob("*.yaml"))}
USUAL_VM = {"patch": [], "complete": True}
USUAL_NIC = {
    "verdict": "Compliant",
    "reason": None,
    "to": "vhost",
    "mtu": None,
    "adapter": "Same",
    "interfaceName": "Same",
    "queues": [1, 1],
    "link": "Kept",
    "mac": False,
}
"""A NIC of the table that says nothing: it has vhost already, and its MAC address is not in the manifest."""
SHORTER = {"/metadata/annotations/vmnic.dev~1assigned": "record", "/metadata/annotations": "record"}
WANTED = [(family, name) for family, names in EXPECTED.items() for name in names]


@functools.cache
def planned(family):
    """Return the plan of each VM of a file, and the names of all its VMs."""
    with_domains = [str(DOMAINS), str(NETWORKS)] if family == "domains" else []
    objects = read_files([str(MANIFESTS / f"{family}.yaml"), *with_domains], recursive=False)
    assert objects.set_aside == []
    plan = make_plan(objects, decide_all(objects, offline=True), [])
    keys = (*objects.machines, *objects.vm_pools, *objects.domains)
    return {key_of(vm["namespace"], vm["name"]): vm for vm in plan["vms"]}, {key_of(*key) for key in keys}


def key_of(namespace, name):
    """Return the name of a VM in the table. A domain has no namespace."""
    return f"{namespace}/{shown_name(name)}".lstrip("/")


def shown(vm):
    """Return the plan of a VM in the words of the table."""
    return {
        "complete": vm["patchComplete"],
        "patch": touched(vm.get("patch", ())),
        "nics": {nic["name"]: shown_nic(nic) for nic in vm["nics"]},
    }


def touched(patch):
    paths = [SHORTER.get(one["path"], one["path"].removeprefix("/spec/template/spec/")) for one in patch if one["op"] != "test"]
    return sorted(set(paths))


def shown_nic(nic):
    guest = nic["guest"]
    return {
        "verdict": nic["verdict"],
        "reason": nic["reason"],
        "to": nic["to"]["datapath"],
        "mtu": guest["mtu"] and [*guest["mtu"].values()],
        "adapter": guest["adapter"],
        "interfaceName": guest["interfaceName"],
        "queues": [*guest["queues"].values()],
        "link": guest["link"],
        "mac": nic["macAddress"] is not None,
    }


@pytest.mark.parametrize(("family", "name"), WANTED, ids=[name for _, name in WANTED])
def test_the_plan_of_a_manifest_is_as_documented(family, name):
    wanted, (plans, _) = EXPECTED[family][name], planned(family)
    if wanted is None:
        assert name not in plans
        return
    nics = {nic: USUAL_NIC | (told or {}) for nic, told in wanted["nics"].items()}
    assert shown(plans[name]) == USUAL_VM | wanted | {"nics": nics, "patch": sorted(wanted.get("patch", []))}


def test_the_table_has_every_vm_and_nothing_else():
    families = {path.stem for path in MANIFESTS.glob("*.yaml")}
    assert {family: planned(family)[1] for family in families} == {one: set(names) for one, names in EXPECTED.items()}
    assert len(WANTED) >= 130
    known = {*USUAL_VM, "nics"}
    assert all(set(vm) <= known for names in EXPECTED.values() for vm in names.values() if vm)
    nics = [nic for names in EXPECTED.values() for vm in names.values() if vm for nic in vm["nics"].values()]
    assert all(set(nic or ()) <= set(USUAL_NIC) for nic in nics)


@pytest.mark.parametrize("family", EXPECTED)
def test_a_patched_manifest_needs_no_other_change(family):
    plans, _ = planned(family)
    documents = [patched(one, plans) for one in read_documents(family)]
    objects = collect(*documents)
    for one in plans.values():
        if one["kind"] == "Domain":
            objects.add_xml(one["domainXml"])
    for path in NETWORKS.glob("*.xml"):
        objects.add_xml(path.read_text())
    again = make_plan(objects, decide_all(objects, offline=True), [])
    assert any(nic["verdict"] == "Change" for one in plans.values() for nic in one["nics"])
    assert [one["name"] for one in again["vms"] if one.get("patch")] == []
    domains = [one for one in again["vms"] if one["kind"] == "Domain"]
    assert [one["name"] for one in domains for nic in one["nics"] if nic["verdict"] == "Change"] == []


def read_documents(family):
    """Return the objects of a file, those of its lists in their place."""
    for one in yaml.safe_load_all((MANIFESTS / f"{family}.yaml").read_text()):
        yield from one["items"] if one["kind"] == "List" else [one]


def patched(document, plans):
    meta = document["metadata"]
    plan = plans.get(f"{meta.get('namespace')}/{meta.get('name') or meta['generateName'] + '*'}")
    ours = document["apiVersion"].startswith("kubevirt.io/") and document["kind"] == "VirtualMachine"
    return jsonpatch.apply_patch(document, plan["patch"]) if plan and ours else document
