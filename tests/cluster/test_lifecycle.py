"""Lifecycle of an installation: nodes are removed, CRDs are applied again, builds change.

Hosts and VMs stay unchanged.
"""

import shutil

import pytest

from tests.builders.vm import nic, vm
from tests.harness.api import wait_for
from tests.harness.cluster import ROOT

HOSTS = ("n1", "n2")


def writes(cluster):
    return [cluster.control(node, {"writes": None}) for node in HOSTS]


@pytest.fixture
def in_use(cluster, pool, policy, namespace):
    """A pool with VFs on two nodes, and stopped compliant VMs.

    Returns the VMs' specs when called.
    """
    pool(rollout={"maxConcurrent": 2})
    policy(f"p-{namespace}", namespace)
    for number in range(20):
        cluster.api.create(vm(f"v{number:02}", nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    wait_for("there are VFs", lambda: [cluster.pf(node).get("numVfs") for node in HOSTS] == [7, 7])
    wait_for("both nodes are ready", lambda: ready(cluster) == 2)
    return lambda: {one["metadata"]["name"]: one["spec"] for one in cluster.api.list("VirtualMachine", namespace)}


def ready(cluster):
    return cluster.api.get("SriovNetworkPool", "fast").get("status", {}).get("nodes", {}).get("ready")


def test_removed_node_takes_its_state_along(cluster):
    for name in ("gone", "later"):
        cluster.api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        wait_for("it has a state", lambda name=name: cluster.api.get("NodeNicState", name))
        cluster.api.delete("Node", name)
        wait_for("its state is gone", lambda name=name: cluster.api.get("NodeNicState", name) is None)
    # The controller has reconciled another node since, and has not created the first one's state again.
    assert cluster.api.get("NodeNicState", "gone") is None


def test_crds_applied_again_change_nothing(cluster, in_use):
    before, machines = writes(cluster), in_use()
    specs = {one["metadata"]["name"]: one["spec"] for one in cluster.api.list("NodeNicState")}
    cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
    cluster.kubectl("label", "node", "n1", "example.com/look=again", "--overwrite")
    wait_for("agents have looked again", lambda: has_looked(cluster, looks(cluster)))
    assert {one["metadata"]["name"]: one["spec"] for one in cluster.api.list("NodeNicState")} == specs
    assert (writes(cluster), in_use()) == (before, machines)


def looks(cluster):
    return [cluster.control(node, {"reads": None}) for node in HOSTS]


def has_looked(cluster, before):
    wait_for("a pass has been made", lambda: all(now > then + 200 for now, then in zip(looks(cluster), before, strict=True)))
    return True


@pytest.fixture
def next_build(tmp_path):
    """The same code with another version number, as a directory for PYTHONPATH."""
    shutil.copytree(ROOT / "operator" / "vmnic", tmp_path / "vmnic")
    init = tmp_path / "vmnic" / "__init__.py"
    init.write_text(init.read_text() + '\n__version__ = "0.2.0"\n')
    return tmp_path


def test_upgrade_and_downgrade_change_no_host_and_no_vm(cluster, in_use, next_build, monkeypatch, namespace):
    before, machines = writes(cluster), in_use()
    for number, path in enumerate((next_build, None)):
        if path:
            monkeypatch.setenv("PYTHONPATH", str(path))
        else:
            monkeypatch.delenv("PYTHONPATH")
        cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
        replace(cluster, number, namespace)
    assert writes(cluster) == before
    after = in_use()
    assert {name: after[name] for name in machines} == machines
    assert len(after) == len(machines) + 2 * (len(HOSTS) + 1)


def replace(cluster, number, namespace):
    """Replace every process by another build, one after the other, while VMs are created."""
    for name in ("controller-1", *(f"agent-{node}" for node in HOSTS)):
        cluster.kill(name)
        machine = f"new-{number}-{name}"
        cluster.api.create(vm(machine, nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
        seen = looks(cluster)
        cluster.start_controller() if name == "controller-1" else cluster.start_agent(name.removeprefix("agent-"))
        has_looked(cluster, seen)
        wait_for(
            "the new VM is as its policy wants it", lambda machine=machine: model(cluster, machine, namespace) == "virtio", 60
        )


def model(cluster, name, namespace):
    machine = cluster.api.get("VirtualMachine", name, namespace)
    return machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"]
