"""Draining a node and uncordoning it, without touching an administrator's own cordon."""

import msgspec
import pytest

from tests.builders.fleet import Fleet, MemoryCluster, instance, launcher
from tests.builders.vm import nad, nic, node, node_state, pool, vm, vmi
from vmnic.api.node_state import Held
from vmnic.controller.caches.cluster_cache import ClusterCache
from vmnic.controller.pools.drain import Drainer
from vmnic.kube.errors import ApiError, ConflictError
from vmnic.kubevirt.launchers import base_of_pod, launcher_base, pod_of
from vmnic.nodes.rollout.ledger import CORDONED

NODE = "n0000"


@pytest.fixture
def fleet():
    return Fleet(1)


@pytest.fixture
def drainer(fleet):
    return Drainer(ClusterCache(fleet.cluster, lambda key, after_s=0.0: None), fleet.cluster)


def node_of(fleet):
    found = fleet.cluster.get("nodes", NODE)
    return found["spec"].get("unschedulable", False), found["metadata"].get("annotations", {}).get(CORDONED)


async def test_cordon_is_annotated_and_removed_again(fleet, drainer):
    assert await drainer.cordon(NODE, "fast")
    assert node_of(fleet) == (True, "fast")
    assert await drainer.cordon(NODE, "fast")
    await drainer.uncordon(NODE)
    assert node_of(fleet) == (False, None)


async def test_administrators_cordon_is_neither_annotated_nor_removed(fleet, drainer):
    fleet.admin_cordons(NODE)
    assert not await drainer.cordon(NODE, "fast")
    await drainer.uncordon(NODE)
    assert node_of(fleet) == (True, None)


async def test_node_uncordoned_by_hand_loses_only_the_annotation(fleet, drainer):
    await drainer.cordon(NODE, "fast")
    fleet.admin_uncordons(NODE)
    before = len(fleet.cluster.changes)
    await drainer.uncordon(NODE)
    assert (node_of(fleet), len(fleet.cluster.changes) - before) == ((False, None), 1)
    await drainer.uncordon(NODE)
    assert len(fleet.cluster.changes) - before == 1


async def test_node_that_changes_concurrently_is_read_again(fleet, drainer):
    read = fleet.cluster.read

    async def raced(*arguments):
        found = await read(*arguments)
        fleet.cluster.put("nodes", found | {"metadata": {"name": NODE, "labels": {"new": "label"}}})
        return found

    fleet.cluster.read = raced
    with pytest.raises(ConflictError):
        await drainer.cordon(NODE, "fast")
    assert node_of(fleet) == (False, None)


@pytest.mark.parametrize(
    ("requests", "phase", "there"),
    [
        ({"vmnic.dev/fast": "1"}, "Running", True),
        ({"cpu": "1"}, "Running", False),
        ({"vmnic.dev/fast": "1"}, "Succeeded", False),
    ],
    ids=["it may have a device", "it asks for none", "it has ended"],
)
async def test_pod_that_could_get_a_device_keeps_node_nonempty(fleet, drainer, requests, phase, there):
    spec = {"nodeName": NODE, "containers": [{"name": "c"}, {"name": "d", "resources": {"requests": requests}}]}
    fleet.cluster.put("pods", {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase}}, "a")
    assert await drainer.has_pods(NODE, {"vmnic.dev/fast"}) is there


RESOURCES = {"vmnic.dev/fast"}


def scene(fleet, *pods, instances=("a", "b"), node=NODE):
    """Run these pods, and instances on a node.

    Return a drainer and the list of evicted pods.
    """
    world, asked = ClusterCache(fleet.cluster, lambda key, after_s=0.0: None), []
    for name in instances:
        world.instances._store(msgspec.Raw(msgspec.json.encode(instance(name, node))))
    fleet.cluster.running_pods, fleet.cluster.evicted = lambda: pods, asked.append
    return Drainer(world, fleet.cluster), asked


def held_by(*words):
    return [Held(vf=f"0000:0b:10.{number}", by=by) for number, by in enumerate(words)]


@pytest.mark.parametrize("status", [403, 422, 429, 500])
async def test_refused_eviction_is_named_and_stops_no_other(fleet, status):
    def evict(pod):
        asked.append(pod)
        if pod == "a":
            raise ApiError(status=status, reason="", message="refused by policy")

    drainer, asked = scene(fleet, launcher("a", NODE), launcher("b", NODE))
    fleet.cluster.evicted = evict
    answer = await drainer.evict(NODE, held_by("pod tenants/a", "pod tenants/b"), RESOURCES)
    assert (asked, answer) == (["a", "b"], "pod tenants/a: refused by policy")


@pytest.mark.parametrize("resource", ["vmnic.dev/fast", "macvtap.network.kubevirt.io/any"])
async def test_vm_with_a_device_of_the_pool_is_evicted(fleet, resource):
    drainer, asked = scene(fleet, launcher("a", NODE, requests=["cpu", resource]))
    assert (await drainer.evict(NODE, held_by("pod tenants/a"), RESOURCES), asked) == ("", ["a"])


async def test_device_of_an_init_container_counts(fleet):
    pod = launcher("a", NODE, requests=["cpu"])
    pod["spec"]["initContainers"] = [{"resources": {"requests": {"vmnic.dev/fast": "1"}}}]
    drainer, asked = scene(fleet, pod)
    assert (await drainer.evict(NODE, held_by("pod tenants/a"), RESOURCES), asked) == ("", ["a"])


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (launcher("a", "n2"), "it is not on node n0000"),
        (launcher("a", NODE, kind="ReplicaSet"), "no VirtualMachineInstance controls it"),
        (launcher("a", NODE, controller=False), "no VirtualMachineInstance controls it"),
        (launcher("a", NODE, apiVersion="evil.io/v1"), "no VirtualMachineInstance controls it"),
        (launcher("a", NODE, uid="another"), "its VirtualMachineInstance is not on node n0000"),
        (launcher("gone", NODE, pod="a"), "its VirtualMachineInstance is not on node n0000"),
        (launcher("a", NODE, namespace="other"), "it is not on node n0000"),
        (launcher("a", NODE, requests=["cpu", "vmnic.dev/slow"]), "it requests no resource of the pool"),
        (launcher("a", NODE, requests=[]), "it requests no resource of the pool"),
    ],
    ids=[
        "elsewhere", "of a ReplicaSet", "not controlled", "of another group", "of an earlier instance", "of no instance",
        "in another namespace", "with a device of another pool", "with no device",
    ],
)  # fmt: skip
async def test_other_pod_named_by_an_agent_is_not_evicted(fleet, pod, why):
    drainer, asked = scene(fleet, pod)
    answer = await drainer.evict(NODE, held_by("pod tenants/a"), RESOURCES)
    assert (asked, f"not evicted: pod tenants/a ({why})" in answer) == ([], True)


async def test_launcher_whose_vm_runs_elsewhere_is_not_evicted(fleet):
    drainer, asked = scene(fleet, launcher("a", NODE), node="n2")
    assert "is not on node n0000" in await drainer.evict(NODE, held_by("pod tenants/a"), RESOURCES)
    assert asked == []


NAMES = ["pod a/../../../../apis/x", "pod tenants/a?dryRun=All", "pod ../a", "pod tenants/", "pod /a", "domain a", "", "pod T/a",
         f"pod {'n' * 64}/a", f"pod tenants/{'n' * 254}", "pod tenants/a/eviction", "pod tenants/a\n"]  # fmt: skip


@pytest.mark.parametrize("words", NAMES)
async def test_text_that_names_no_pod_reaches_no_request(fleet, words):
    drainer, asked = scene(fleet, launcher("a", NODE))
    answer = await drainer.evict(NODE, held_by(words), RESOURCES)
    assert (asked, "(no pod)" in answer) == ([], True)


@pytest.mark.parametrize(
    ("pod", "vm_name", "mine"),
    [
        ("virt-launcher-db-x7k2p", "db", True),
        ("virt-launcher-db-2-x7k2p", "db", False),
        ("virt-launcher-db-x7k2p", "db-2", False),
        ("web-5d8f7-x7k2p", "web", False),
        (f"virt-launcher-{'v' * 44}x7k2p", "v" * 60, True),
    ],
    ids=["its launcher", "another VM's", "likewise", "no launcher", "a long name is cut"],
)
def test_launcher_is_recognized_by_its_name(pod, vm_name, mine):
    assert (base_of_pod(pod) == launcher_base(vm_name)) is mine


def test_holder_may_be_no_pod():
    assert (pod_of(Held(vf="x", by="pod a/b")), pod_of(Held(vf="x", by="libvirt domain web"))) == (("a", "b"), None)


def simulation(*documents):
    """Return a drain simulation over caches with these objects."""
    world = ClusterCache(MemoryCluster(), lambda key, after_s=0.0: None)
    kinds = {one.resource.kind: one for one in reversed(world.reflectors)}
    for document in documents:
        kinds[document["kind"]]._store(msgspec.Raw(msgspec.json.encode(document)))
    return Drainer(world, None).simulation()


def running(name="db", where="n1"):
    instance = vmi(name)
    instance["status"] |= {"nodeName": where}
    instance["spec"] = {
        "domain": {"devices": {"interfaces": [{"name": "fast", "sriov": {}}]}},
        "networks": [{"name": "fast", "multus": {"networkName": "fast"}}],
    }
    instance["metadata"]["ownerReferences"] = [{"kind": "VirtualMachine", "name": name}]
    return vm(name, nic("fast", binding="sriov", network="fast")), instance


SEVEN = {"vmnic.dev/fast": "7"}
CLUSTER = [
    pool("fast"), node("n1", allocatable=SEVEN), node("n2", allocatable=SEVEN), node_state("n1", held=[0]), nad("fast", cni="sriov", resource="vmnic.dev/fast"),
]  # fmt: skip
HELD = Held(vf="0000:0b:10.0", by="pod tenants/virt-launcher-db-x7k2p")


@pytest.mark.parametrize(
    ("more", "held", "words"),
    [
        ([node_state("n2", vfs=1)], HELD, ""),
        ([node_state("n2", vfs=0)], HELD, "no other node has free VFs for VM tenants/db (1 of vmnic.dev/fast)"),
        ([node_state("n2", vfs=1, held=[0])], HELD, "no other node has free VFs"),
        (
            [node_state("n2")],
            Held(vf="0000:0b:10.0", by="pod tenants/plain"),
            "pod tenants/plain holds 0000:0b:10.0 and is not a VM",
        ),
        ([node_state("n2")], Held(vf="0000:0b:10.0"), "an unknown process holds 0000:0b:10.0"),
    ],
    ids=["there is one", "there is none", "it is held", "a pod that is no VM's", "nobody knows who"],
)
def test_vms_are_matched_to_devices_elsewhere(more, held, words):
    why = simulation(*CLUSTER, *more, *running()).blocking_reason("n1", [held])
    assert why.startswith(words)
    assert bool(why) is bool(words)


def test_vms_that_already_leave_are_placed_first():
    found = simulation(
        *CLUSTER, node("n3"), node_state("n2", vfs=1), node_state("n3", vfs=1, held=[0]), *running(), *running("web", "n3")
    )
    found.reserve("n3", [Held(vf="0000:0b:10.0", by="pod tenants/virt-launcher-web-x7k2p")])
    assert "no other node has free VFs" in found.blocking_reason("n1", [HELD])
