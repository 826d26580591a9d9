"""Real guests: what a VM sees of its NIC after vmnic's decisions, moves and restarts. No more than two run at once."""

import shlex
import time

import pytest

from tests.builders.vm import policy
from tests.harness.api import wait_for
from tests.harness.cluster import ROOT
from tests.harness.pages import script_below

from .guests import NAMESPACE, Guest, guest_vm, missing_links
from .handlers import stop_handlers
from .pods import POOL, RESOURCE, ask_for, wait_for_vfs

_LONG_S = 120


def _policy(name, **fields):
    return policy(name, selector={"namespaceSelector": {}, "vmSelector": {"matchLabels": {"policy": name}}}, **fields)


@pytest.fixture(scope="module", autouse=True)
def workers(cluster, lab, figures, request):
    """Workers that run VMs, and the policies of the guests."""
    kept = request.config.getoption("kept")
    started = time.monotonic()
    if not kept:
        lab.start_handlers(cluster)
        figures["virt-handler on both workers, with the images"] = f"{time.monotonic() - started:.0f} s"
    cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    queues = {"multiqueue": {"mode": "Always"}}
    for body in (_policy("move", existing="Rolling", **queues), _policy("admit", action="Admit", existing="WhenStopped")):
        cluster.api.apply(body)
        name = body["metadata"]["name"]
        wait_for(f"the policy {name} is known", lambda name=name: cluster.api.get("VmNicPolicy", name).get("status"))
    cluster.kubectl("apply", "-f", ROOT / "examples" / "pools" / f"{POOL}.yaml")
    wait_for_vfs(cluster, 7)
    lacks = missing_links(cluster)
    figures["bridge binding and NIC hot-plug in a real guest"] = (
        f"not shown, no dummy links: {lacks}" if lacks else "not tested, though this kernel has dummy links"
    )
    yield
    for name in ("move", "admit"):
        cluster.api.delete("VmNicPolicy", name)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
    if not kept:
        stop_handlers(cluster)
    figures["all tests with real guests"] = f"{time.monotonic() - started:.0f} s"


@pytest.fixture(scope="module")
def linux(cluster, figures):
    """A Linux VM that holds a VF, which KubeVirt does not give to the guest, and pings the control plane."""
    node = next(
        one for one in cluster.api.get("Node", cluster.control_plane)["status"]["addresses"] if one["type"] == "InternalIP"
    )
    # vmnic counts 100 MiB for each queue, and gives several queues to guests that have twice as much.
    resources = {"memory": {"guest": "512Mi"}, "resources": {"limits": {RESOURCE: "1"}, "requests": {RESOURCE: "1"}}}
    started = time.monotonic()
    guest = Guest(
        cluster,
        guest_vm("linux", model="e1000e", policy="move", os="linux", arguments=f"ping={node['address']}", **resources),
    )
    guest.first = guest.boot()
    figures["VM created: until the guest has its address"] = f"{time.monotonic() - started:.1f} s"
    figures["memory of a VM with 512 MiB (PSS of its pod)"] = f"{guest.memory_bytes() / 1e6:.0f} MB"
    yield guest
    guest.delete()


@pytest.fixture(scope="module")
def windows(cluster):
    """A VM whose guest agent reports Windows, without any other hint."""
    guest = Guest(cluster, guest_vm("windows", model="virtio", policy="move", arguments="os=mswindows"))
    guest.first = guest.boot()
    yield guest
    guest.delete()


def test_a_guest_boots_with_the_nic_of_its_patched_vm(linux):
    assert linux.spec_of_nic["model"] == "virtio"
    seen = linux.first
    assert (seen["driver"], seen["model"], seen["queues"], seen["link"]) == ("virtio_net", "1af4:1041", "2", "up")


def test_a_guest_sets_its_queues_up_to_those_that_it_has(linux):
    assert linux.nic()["most"] == "2"
    assert linux.set_queues(1)
    assert linux.nic()["queues"] == "1"
    assert linux.set_queues(2)
    assert not linux.set_queues(3)
    assert linux.nic()["queues"] == "2"


def test_a_patched_guest_migrates_and_keeps_its_nic(linux, figures):
    before = linux.nic()
    _move(linux, linux.migrate, figures, "live migration")
    assert linux.nic() == before


def test_an_evicted_guest_moves(linux, figures):
    _move(linux, linux.evict, figures, "eviction")
    assert linux.nic()["link"] == "up"


def test_a_drain_moves_the_guest_that_holds_a_vf(cluster, linux, figures):
    before = linux.node

    def drain():
        cluster.api.merge("SriovNetworkPool", POOL, {"spec": {"numVfs": 3, "rollout": {"disruption": "Drain"}}})
        linux.wait_until_moved(before)

    _move(linux, drain, figures, "drain by vmnic")
    wait_for_vfs(cluster, 3, _LONG_S)
    wait_for("the node is uncordoned", lambda: not cluster.api.get("Node", before)["spec"].get("unschedulable"))


def test_the_pool_returns_when_the_guest_is_gone(cluster, linux):
    linux.delete()
    cluster.api.merge("SriovNetworkPool", POOL, {"spec": {"rollout": {"disruption": "WhenFree"}}})
    ask_for(cluster, 7)
    wait_for_vfs(cluster, 7)


def _move(guest, act, figures, what):
    """Move a guest while it pings five times a second, and note how long that takes and what it loses."""
    sent, lost = guest.pings()
    started = time.monotonic()
    act()
    took = time.monotonic() - started
    moved = guest.pings()
    # Answers to later pings show which of the earlier ones are lost.
    after = wait_for("the guest reaches others again", lambda: _pings_after(guest, moved))
    figures[f"{what}: time, pings lost"] = f"{took:.1f} s, {after[1] - lost} of {after[0] - sent}"


def _pings_after(guest, moved):
    counts = guest.pings()
    return counts if counts[0] - counts[1] > moved[0] - moved[1] else None


def test_a_guest_is_moved_when_its_agent_reports_its_system(windows, figures):
    assert windows.first["driver"] == "virtio_net"
    started = time.monotonic()
    seen = windows.boot()
    figures["agent reports Windows: until the guest has its new NIC"] = f"{time.monotonic() - started:.1f} s"
    assert windows.spec_of_nic["model"] == "e1000e"
    assert (seen["driver"], seen["model"]) == ("e1000e", "8086:10d3")
    wait_for(
        "the agent reports again", lambda: windows.instance["status"].get("guestOSInfo", {}).get("id") == "mswindows", _LONG_S
    )


def test_a_rolled_guest_keeps_its_mac(windows):
    assert windows.spec_of_nic["macAddress"] == windows.first["mac"]
    assert windows.nic()["mac"] == windows.first["mac"]


def test_a_reverted_guest_has_its_former_nic(cluster, windows):
    cluster.vmnic("revert", "vm", windows.name, "-n", NAMESPACE, "--apply")
    assert windows.spec_of_nic["model"] == "virtio"
    windows.restart()
    assert windows.boot()["driver"] == "virtio_net"


def test_the_readmes_vm_boots_with_the_nic_of_the_policy(cluster):
    script = script_below(ROOT / "README.md", "With virtual machines that boot", "kubectl apply")
    prepare, create, logs = [shlex.split(line, comments=True)[1:] for line in script.splitlines()]
    cluster.kubectl(*prepare)
    wait_for("the policy is known", lambda: cluster.api.get("VmNicPolicy", "tenants").get("status"))
    cluster.kubectl(*create)

    def shown():
        text = cluster.kubectl(*logs, check=False)
        return text if "GUEST ready" in text else ""

    assert "driver=virtio_net" in wait_for("the guest is ready", shown, _LONG_S)
    cluster.kubectl("delete", "-f", "tests/kind/guest/vm.yaml", "-f", "examples/policies/tenants.yaml")


def test_admit_changes_the_guest_and_not_the_vm(cluster):
    guest = Guest(cluster, guest_vm("admitted", model="virtio", policy="admit", os="windows"))
    seen = guest.boot()
    assert guest.spec_of_nic["model"] == "virtio"
    assert seen["driver"] == "e1000e"
    guest.delete()
