"""One cluster for the whole tier. vmnic's processes run with the RBAC of `deploy/` and tokens of their own."""

import itertools
import os
import pathlib

import pytest

from tests.builders.vm import nad, nic, vm
from tests.cluster.machines import node_of, wait_until_it_runs
from tests.harness.api import wait_for
from tests.harness.cluster import Cluster
from tests.harness.packaging import ensure_helm
from tests.harness.programs import ensure, ensure_promtool

_NUMBERS = itertools.count(1)


def pytest_collection_finish(session):
    """Build the programs before any test.

    A build takes minutes on a busy machine, while a test may take two.
    """
    files = {item.path.name for item in session.items if "cluster" in item.path.parts}
    if files and not session.config.option.collectonly:
        ensure()
    if "test_packaging.py" in files and not session.config.option.collectonly:
        ensure_helm()
    if "test_alerts.py" in files and not session.config.option.collectonly:
        ensure_promtool()


@pytest.fixture(scope="session")
def plane(tmp_path_factory):
    """Control plane, KubeVirt and simulated nodes. vmnic is installed and not started."""
    # The path of a Unix socket has room for 107 bytes.
    directory = pathlib.Path(os.path.realpath(tmp_path_factory.mktemp("c")))
    cluster = Cluster(directory, ensure())
    try:
        cluster.start_plane()
        cluster.start_nodes()
        cluster.install()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def cluster(plane):
    """The same with one controller and an agent on every node."""
    plane.start_controller()
    plane.start_agents()
    plane.wait_for_webhook()
    wait_for("every agent has reported", lambda: all(plane.pf(node.name) for node in plane.nodes))
    return plane


@pytest.fixture
def namespace(plane):
    """A namespace of the test's own.

    Deleting it deletes its VMs.
    """
    name = f"test-{next(_NUMBERS)}"
    plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    for machine in plane.api.list("VirtualMachine", name):
        plane.api.delete("VirtualMachine", machine["metadata"]["name"], name)
    plane.api.delete("Namespace", name)


@pytest.fixture
def pool(cluster):
    """Creates pools, and removes them with their VFs."""
    made = []

    def make(name="fast", **spec):
        body = {"nicSelector": {"models": ["82576"]}, "numVfs": 7, "rollout": {"maxConcurrent": 1}} | spec
        body = {field: value for field, value in body.items() if value is not None}
        cluster.api.apply(_object("SriovNetworkPool", name, body))
        made.append(name)
        return name

    yield make
    for name in made:
        cluster.api.delete("SriovNetworkPool", name)
    for name in made:
        wait_for(
            f"the nodes have given up pool {name}", lambda name=name: cluster.api.get("SriovNetworkPool", name) is None, 60
        )
    wait_for("no node is asked for anything", lambda: not any(s["spec"].get("pfs") for s in cluster.api.list("NodeNicState")))


@pytest.fixture
def start(cluster, namespace):
    """Starts a VM with a VF, and returns its node."""
    cluster.api.create(nad("fast", namespace=namespace, cni="sriov", resource="vmnic.dev/fast"))

    def make(name, **spec):
        machine = vm(name, nic(), nic("fast", binding="sriov", network="fast"), namespace=namespace)
        machine["spec"]["template"]["spec"] |= spec
        cluster.api.create(machine)
        wait_until_it_runs(cluster, namespace, name)
        node = node_of(cluster, namespace, name)
        wait_for("its VF is seen", lambda: any(name in held.get("by", "") for held in cluster.pf(node).get("held", [])))
        return node

    return make


@pytest.fixture
def policy(cluster):
    """Creates policies, and deletes them."""
    made = []

    def make(name, namespace, *, action="Patch", existing="WhenStopped", **spec):
        selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        body = {"selector": selector, "enforcement": {"action": action, "existingVMs": existing}} | spec
        cluster.api.apply(_object("VmNicPolicy", name, body))
        made.append(name)
        # The webhook decides from its cache. A status with this generation proves that the controller has read the policy.
        wait_for(f"policy {name} is evaluated", lambda: _evaluated(cluster, name))
        return name

    yield make
    for name in made:
        cluster.api.delete("VmNicPolicy", name)


def _evaluated(cluster, name):
    policy = cluster.api.get("VmNicPolicy", name)
    return policy.get("status", {}).get("observedGeneration") == policy["metadata"]["generation"]


def _object(kind, name, spec):
    return {"apiVersion": "vmnic.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
