"""Output of real processes: documented metrics, single Events, JSON logs, and conditions for `kubectl wait`."""

import json

from tests.builders.argocd import health
from tests.builders.metrics import differences, value
from tests.builders.vm import nic, vm
from tests.cluster.machines import machine_of
from tests.harness.api import wait_for
from vmnic.agent.metrics import AGENT_METRICS
from vmnic.controller.metrics import CONTROLLER_METRICS


def events(cluster, kind, name):
    """Return types and reasons of an object's Events in order of time."""
    found = cluster.api.request("GET", "/apis/events.k8s.io/v1/events")["items"]
    mine = [one for one in found if (one["regarding"]["kind"], one["regarding"]["name"]) == (kind, name)]
    return [(one["type"], one["reason"]) for one in sorted(mine, key=lambda one: one["eventTime"])]


def test_every_process_serves_the_documented_metrics(cluster, pool, policy, namespace):
    pool()
    policy(f"p-{namespace}", namespace)
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace))
    wait_for(
        "the pool is done", lambda: value(cluster.scrape("controller-1"), "vmnic_pool_vfs", pool="fast", state="free") == 14
    )
    text = cluster.scrape("controller-1")
    assert differences(text, CONTROLLER_METRICS) == []
    assert value(text, "vmnic_leader") == 1
    assert value(text, "vmnic_pool_condition", pool="fast", condition="Ready") is not None
    assert value(text, "vmnic_webhook_seconds_count", webhook="virtualmachine", outcome="patched") > 0
    wait_for("the VM is counted", lambda: value(
        cluster.scrape("controller-1"), "vmnic_policy_nics", policy=f"p-{namespace}", datapath="vhost") == 1)  # fmt: skip
    agent = cluster.scrape("agent-n1")
    assert differences(agent, AGENT_METRICS) == []
    assert (value(agent, "vmnic_agent_vfs", state="vfio"), value(agent, "vmnic_agent_runs_total", outcome="Applied") > 0) == (
        7,
        True,
    )


def test_rolled_out_pool_and_changed_vm_emit_one_event_each(cluster, pool, policy, namespace):
    pool(f"e-{namespace}")
    wait_for("it is told", lambda: ("Normal", "RollingOut") in events(cluster, "SriovNetworkPool", f"e-{namespace}"))
    wait_for("its end is told", lambda: events(cluster, "SriovNetworkPool", f"e-{namespace}")[-1][1] != "RollingOut")
    name = f"v-{namespace}"
    cluster.api.create(vm(name, nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    policy(f"p-{namespace}", namespace)
    wait_for("the VM's owner is told", lambda: events(cluster, "VirtualMachine", name) == [("Normal", "NicChanged")])
    told = events(cluster, "SriovNetworkPool", f"e-{namespace}")
    assert len(told) == len(set(told)), told


def test_log_lines_are_json_with_the_keys_of_their_subject(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    machine_of(cluster, namespace)
    lines = [json.loads(line) for name in ("controller-1", "agent-n1") for line in cluster.processes.log(name).splitlines()]
    assert {"n1"} == {line["node"] for line in lines if line["logger"].startswith("vmnic.agent")}


def test_kubectl_waits_for_pool_and_policy(cluster, pool, policy, namespace):
    pool(nodeSelector={"kubernetes.io/hostname": "n1"})
    policy(f"p-{namespace}", namespace)
    assert "condition met" in cluster.kubectl("wait", "--for=condition=Ready", "snp/fast", "--timeout=60s")
    assert cluster.pf("n1")["numVfs"] == 7
    assert "condition met" in cluster.kubectl("wait", "--for=condition=Ready", "nicst/n1", "--timeout=30s")
    assert "condition met" in cluster.kubectl("wait", "--for=condition=Ready", f"vnp/p-{namespace}", "--timeout=30s")


def test_argo_cd_tells_healthy_from_unhealthy_objects(cluster, pool, policy, namespace):
    pool()
    policy(f"p-{namespace}", namespace)

    def found(kind, name):
        return health(cluster.api.get(kind, name))[0]

    wait_for(
        "n3 has failed", lambda: (found("SriovNetworkPool", "fast"), found("NodeNicState", "n3")) == ("Degraded", "Degraded")
    )
    wait_for("n1 is healthy", lambda: found("NodeNicState", "n1") == "Healthy")
    assert found("VmNicPolicy", f"p-{namespace}") == "Healthy"
