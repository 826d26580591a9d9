"""Endless decisions in the real process affect their own VM and nothing else."""

import contextlib
import threading
import time

import pytest
import urllib3

from tests.builders.metrics import value
from tests.builders.vm import nic, vm
from tests.cluster.machines import datapaths
from tests.harness.api import wait_for

PROGRAM = ("-m", "tests.harness.stall")
MOST_S = 1.0
"""A probe and a review are answered within this time."""


@pytest.fixture
def faulty(cluster):
    """The cluster with a controller in which some decisions do not end."""
    cluster.kill("controller-1")
    cluster.start_controller(program=PROGRAM)
    wait_for("it is ready", lambda: probe(cluster, "readyz") == 200)
    yield cluster
    cluster.kill("controller-1")
    cluster.start_controller()


def probe(cluster, path):
    return urllib3.request(
        "GET", f"http://127.0.0.1:{cluster.probe_ports['controller-1']}/{path}", retries=False, timeout=5
    ).status


@contextlib.contextmanager
def probing(cluster):
    """Probe all the time.

    Afterwards, the list contains the longest answer in seconds.
    """
    taken, stop = [], threading.Event()

    def work():
        while not stop.wait(0.02):
            started = time.monotonic()
            assert probe(cluster, "healthz") == 200
            taken.append(time.monotonic() - started)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join(10)


def create(cluster, namespace, name):
    """Create a stopped VM, and return the seconds that this took."""
    started = time.monotonic()
    cluster.api.create(vm(name, nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    return time.monotonic() - started


def set_aside(cluster, namespace, name):
    return f"VirtualMachine {namespace}/{name} is set aside (time)" in cluster.processes.log("controller-1")


def matched(cluster, policy):
    return cluster.api.get("VmNicPolicy", policy)["status"]["vms"]["matched"]


def lease(cluster):
    spec = cluster.api.get("Lease", "vmnic-controller", "vmnic-system")["spec"]
    return spec["holderIdentity"], spec["leaseTransitions"]


def test_busy_decision_affects_only_its_own_vm(faulty, policy, namespace):
    name = policy(f"p-{namespace}", namespace)
    held = lease(faulty)
    with probing(faulty) as taken:
        # The review of this VM does not end either, so it is allowed unchanged.
        review_s = create(faulty, namespace, "busy")
        wait_for("it is set aside", lambda: set_aside(faulty, namespace, "busy"))
        other_s = create(faulty, namespace, "other")
        wait_for("the other VM is decided", lambda: matched(faulty, name) == 1)
    assert (datapaths(faulty, namespace, "busy"), datapaths(faulty, namespace, "other")) == (["e1000e"], ["virtio"])
    text = faulty.scrape("controller-1")
    assert value(text, "vmnic_objects_set_aside", kind="VirtualMachine") == 1
    assert value(text, "vmnic_webhook_seconds_count", webhook="virtualmachine", outcome="late") >= 1
    assert lease(faulty) == held
    assert max(*taken, review_s, other_s) < MOST_S


def test_stalled_process_restarts_without_the_object(faulty, policy, namespace):
    name = policy(f"p-{namespace}", namespace)
    create(faulty, namespace, "stuck")
    wait_for("the process ends itself", lambda: not faulty.processes.running("controller-1"), 60)
    faulty.start_controller(program=PROGRAM)
    wait_for("the VM is set aside", lambda: set_aside(faulty, namespace, "stuck"))
    create(faulty, namespace, "other")
    wait_for("the other VM is decided", lambda: matched(faulty, name) == 1)
    assert faulty.processes.running("controller-1")
