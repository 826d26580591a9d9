"""Pools with one resource for each function, and NICs of one VM on different functions."""

import pytest

from tests.builders.decide import apply_patches, decide, decision, told
from tests.builders.vm import nad, nic, policy, pool, vm

POOL = pool(resourcePerPF=True)
SEGMENT = [nad("br", segment="blue")]


def node(name, *links, vfs=2, held=0):
    """Return a node with one PF for each link name, of which each has some VFs in use."""
    pfs, specs = [], []
    for number, link in enumerate(links):
        bus = f"0000:{number + 11:02x}"
        pf = {"pciAddress": f"{bus}:00.0", "vendor": "8086", "device": "1521", "driver": "igb", "totalVfs": 7, "name": link}
        pf |= {"numVfs": vfs, "firstVf": f"{bus}:10.0", "vfStride": 1, "vfs": [{"range": f"0-{vfs - 1}", "driver": "vfio-pci"}]}
        pfs.append(pf | {"held": [{"vf": f"{bus}:10.{index}"} for index in range(held)]})
        groups = [{"pool": "fast", "resource": f"vmnic.dev/fast-{link}"}]
        specs.append({"pciAddress": f"{bus}:00.0", "pool": "fast", "numVfs": vfs, "groups": groups})
    return {
        "apiVersion": "vmnic.dev/v1alpha1",
        "kind": "NodeNicState",
        "metadata": {"name": name},
        "spec": {"synced": True, "pfs": specs},
        "status": {"bootID": "b", "host": {"iommu": True, "modules": ["vhost_net"]}, "pfs": pfs},
    }


def nads(*links):
    return [nad(f"fast-{link}", cni="sriov", resource=f"vmnic.dev/fast-{link}", segment="blue") for link in links]


def on_bridge(*names):
    return [nic(name, binding="bridge", network="br", model="virtio", macAddress=f"02:00:00:00:00:0{at}")
            for at, name in enumerate(names)]  # fmt: skip


def rule(spread=None, datapaths=("sriov",)):
    source = {"pool": "fast"} | ({"spread": spread} if spread else {})
    return policy(datapaths=datapaths, sriov=source, existing="Immediately", liveMigration="NotNeeded")


def resources(found):
    return [one.wanted.resource for one in found.nics]


def test_a_nic_gets_the_network_of_the_resource_that_is_counted():
    documents = [rule(), vm("web", *on_bridge("a")), *SEGMENT, *nads("ens1f0"), POOL, node("n1", "ens1f0")]
    after = apply_patches(documents)[1]["spec"]["template"]["spec"]
    assert after["networks"][0]["multus"]["networkName"] == "fast-ens1f0"
    found = decision(*documents)
    assert (resources(found), told(found.nics[0])) == (["vmnic.dev/fast-ens1f0"], [("sriov", None)])


@pytest.mark.parametrize(
    ("nodes", "links", "spread", "expected"),
    [
        ([("n1", "ens1f0", "ens1f1")], ("ens1f0", "ens1f1"), "PerPf", ["fast-ens1f0", "fast-ens1f1"]),
        ([("n1", "ens0"), ("n2", "ens1f0", "ens1f1")], ("ens0", "ens1f0", "ens1f1"), "PerPf",
         ["fast-ens1f0", "fast-ens1f1"]),
        ([("n1", "ens0"), ("n2", "ens1f0")], ("ens0", "ens1f0"), None, ["fast-ens0", "fast-ens0"]),
        ([("n1", "ens1f0", "ens1f1")], ("ens1f1",), None, ["fast-ens1f1", "fast-ens1f1"]),
    ],
    ids=["two functions", "a node with two functions", "any function", "only functions with a network"],
)  # fmt: skip
def test_the_nics_of_a_vm_get_vfs_on_one_node(nodes, links, spread, expected):
    states = [node(*one) for one in nodes]
    found = decision(rule(spread), vm("web", *on_bridge("a", "b")), *SEGMENT, *nads(*links), POOL, *states)
    assert sorted(resources(found)) == [f"vmnic.dev/{name}" for name in expected]


def test_nics_move_to_other_functions_where_one_is_full():
    full, free = node("n1", "ens0", vfs=1), node("n2", "ens1", vfs=2)
    found = decision(rule(), vm("web", *on_bridge("a", "b")), *SEGMENT, *nads("ens0", "ens1"), POOL, full, free)
    assert resources(found) == ["vmnic.dev/fast-ens1"] * 2


@pytest.mark.parametrize(
    ("owner", "states", "words"),
    [
        (POOL, [node("n1", "ens1f0"), node("n2", "ens1f1")],
         "no node that the VM can run on has free VFs on 2 functions of pool fast"),
        (POOL, [node("n1", "ens1f0", "ens1f1", held=2), node("n2", "ens1f1", vfs=4)],
         "no node that the VM can run on has free VFs on 2 functions of pool fast"),
    ],
    ids=["one function for each node", "VFs of the other node are in use"],
)  # fmt: skip
def test_too_few_functions_are_no_free_vf(owner, states, words):
    machine = vm("web", *on_bridge("a", "b"))
    found = decision(rule("PerPf", ("sriov", "vhost")), machine, *SEGMENT, *nads("ens1f0", "ens1f1"), owner, *states)
    (finding,) = [one.finding for judged in found.nics for one in judged.candidates if one.finding and one.datapath == "sriov"]
    assert (finding.reason, words in finding.message) == ("NoFreeVf", True)
    assert sorted(one.wanted.datapath for one in found.nics) == ["sriov", "vhost"]


def test_a_pool_with_one_resource_cannot_spread():
    shared = [nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")]
    state = node("n1", "ens1f0")
    state["spec"]["pfs"][0]["groups"][0]["resource"] = "vmnic.dev/fast"
    found = decision(rule("PerPf"), vm("web", *on_bridge("a", "b")), *SEGMENT, *shared, pool(), state)
    assert [told(one) for one in found.nics] == [[("sriov", None)], [("sriov", "NoFreeVf")]]
    assert "set resourcePerPF" in found.nics[1].candidates[0].finding.message


def test_each_resource_is_counted_on_its_own():
    machines = [vm(name, *on_bridge("a", "b")) for name in ("v1", "v2", "v3")]
    objects = [rule("PerPf"), *machines, *SEGMENT, *nads("ens1f0", "ens1f1"), POOL, node("n1", "ens1f0", "ens1f1", vfs=2)]
    found = decide(*objects)
    assert {name: found.capacity.total[f"vmnic.dev/fast-{name}"] for name in ("ens1f0", "ens1f1")} == {"ens1f0": 2, "ens1f1": 2}
    assert "vmnic.dev/fast" not in found.capacity.total
    assert [[one.datapath for one in (n.wanted for n in v.nics)].count("sriov") for v in found.vms] == [2, 2, 0]


@pytest.mark.parametrize(("reserve", "last"), [(2, "sriov"), (3, "vhost")], ids=["enough are left", "one too few is left"])
def test_the_reserve_counts_over_all_functions(reserve, last):
    owner = pool(resourcePerPF=True, reserveForMigration=reserve)
    machine = vm("web", *on_bridge("a", "b"))
    objects = [*SEGMENT, *nads("ens1f0", "ens1f1"), owner, node("n1", "ens1f0", "ens1f1", vfs=2)]
    found = decision(rule("PerPf", ("sriov", "vhost")), machine, *objects)
    assert [one.wanted.datapath for one in found.nics] == ["sriov", last]


def test_a_vm_on_a_function_stays_there():
    there = nic("a", binding="sriov", network="fast-ens1f1", macAddress="02:00:00:00:00:01")
    found = decision(rule(), vm("web", there), *SEGMENT, *nads("ens1f0", "ens1f1"), POOL, node("n1", "ens1f0", "ens1f1"))
    assert (resources(found), found.nics[0].verdict) == (["vmnic.dev/fast-ens1f1"], "Compliant")


def test_a_new_nic_avoids_the_function_of_the_present_one():
    there = nic("a", binding="sriov", network="fast-ens1f0", macAddress="02:00:00:00:00:09")
    objects = [*SEGMENT, *nads("ens1f0", "ens1f1"), POOL, node("n1", "ens1f0", "ens1f1")]
    found = decision(rule("PerPf"), vm("web", there, *on_bridge("b")), *objects)
    assert resources(found) == ["vmnic.dev/fast-ens1f0", "vmnic.dev/fast-ens1f1"]


def test_networks_count_where_no_node_is_given():
    objects = [*SEGMENT, *nads("ens1f0", "ens1f1"), POOL]
    found = decision(rule("PerPf"), vm("web", *on_bridge("a", "b")), *objects, offline=True)
    assert sorted(resources(found)) == ["vmnic.dev/fast-ens1f0", "vmnic.dev/fast-ens1f1"]


def test_a_physical_pool_has_a_resource_for_each_function_too():
    whole = pool(resourcePerPF=True, function="Physical")
    state = node("n1", "ens1f0", "ens1f1")
    for spec, seen in zip(state["spec"]["pfs"], state["status"]["pfs"], strict=True):
        spec |= {"function": "Physical", "numVfs": 0}
        seen |= {"driver": "vfio-pci", "numVfs": 0, "vfs": [], "firstVf": "", "vfStride": 0}
    machines = [vm(name, *on_bridge("a")) for name in ("v1", "v2", "v3")]
    asked = policy(datapaths=["passthrough"], passthrough={"pool": "fast"}, existing="Immediately", liveMigration="NotNeeded")
    found = decide(asked, *machines, *SEGMENT, whole, state)
    assert [resources(one)[0] for one in found.vms[:2]] == ["vmnic.dev/fast-ens1f0", "vmnic.dev/fast-ens1f1"]
    assert told(found.vms[2].nics[0]) == [("passthrough", "NoFreeVf")]
