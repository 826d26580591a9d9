"""`kubectl vmnic` against the live cluster."""

import json
import os
import pathlib
import subprocess
import sys

import yaml

from tests.builders.vm import nic, policy, vm
from tests.cluster.machines import datapaths, machine_of, make_networks, state_of
from tests.harness.api import wait_for

PROGRAM = str(pathlib.Path(sys.executable).with_name("kubectl-vmnic"))


def run(cluster, *arguments, text=None):
    env = os.environ | {"KUBECONFIG": str(cluster.plane.kubeconfig)}
    done = subprocess.run([PROGRAM, *arguments], env=env, input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_policy_file_is_compared_with_the_cluster_without_it(cluster, namespace):
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    manifest = yaml.safe_dump(policy("from-git", selector=selector))
    code, out, err = run(cluster, "plan", "-f", "-", "--against", "cluster", "-o", "json", text=manifest)
    assert (code, err) == (1, "")
    assert [(one["namespace"], one["name"]) for one in json.loads(out)["vms"]] == [(namespace, "v")]
    assert cluster.api.get("VmNicPolicy", "from-git") is None


def test_explain_gives_the_reason_and_names_what_is_missing(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    cluster.api.create(vm("v", nic(), namespace=namespace, os="windows", run_strategy="Halted"))
    wait_for("it is changed", lambda: run(cluster, "explain", "vm", "v", "-n", namespace)[1].count("Compliant"))
    code, out, _ = run(cluster, "explain", "vm", "v", "-n", namespace, "-o", "json")
    candidates = json.loads(out)["nics"][0]["candidates"]
    assert (code, [one.get("reason") for one in candidates]) == (0, [None, "VirtioNotChosenForWindows"])
    code, _, err = run(cluster, "explain", "vm", "gone", "-n", namespace)
    assert (code, f"VirtualMachine {namespace}/gone does not exist" in err) == (2, True)


def test_nodes_lists_every_function_and_refuses_an_unknown_node(cluster):
    code, out, _ = run(cluster, "nodes", "n1", "-o", "json")
    assert (code, [nic["model"] for nic in json.loads(out)["nodes"][0]["functions"]]) == (0, ["82576", "I350"])
    code, _, err = run(cluster, "nodes", "n9")
    assert (code, "node n9 has no NodeNicState" in err) == (2, True)


def test_unreachable_cluster_is_an_error_and_no_change(cluster, tmp_path):
    config = yaml.safe_load(cluster.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    code, _, err = run(cluster, "plan", "--kubeconfig", str(tmp_path / "config"))
    assert (code, "https://127.0.0.1:1" in err) == (2, True)


def test_vm_that_does_not_exist_yet_counts_as_new(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace, existing="Leave")
    manifest = yaml.safe_dump(vm("v", nic(model="e1000e"), namespace=namespace))
    code, out, _ = run(cluster, "plan", "-f", "-", "--against", "cluster", "-o", "json", text=manifest)
    (machine,) = json.loads(out)["vms"]
    assert (code, machine["nics"][0]["action"], machine["restartRequired"]) == (1, "Patch", False)


def test_revert_prints_the_patch_and_applies_it_with_apply(cluster, pool, policy, namespace):
    pool()
    wait_for(
        "there are VFs", lambda: cluster.api.get("SriovNetworkPool", "fast").get("status", {}).get("vfs", {}).get("free") == 14
    )
    make_networks(cluster, namespace)
    policy(f"p-{namespace}", namespace, datapaths=["sriov", "vhost"])
    first = vm(
        "v", nic(), nic("data", binding="bridge", network="br", model="e1000e"), namespace=namespace, run_strategy="Halted"
    )
    cluster.api.create(first)
    assert datapaths(cluster, namespace) == [None, "sriov"]
    code, out, err = run(cluster, "revert", "vm", "v", "-n", namespace)
    assert (code, json.loads(out)[-1]["path"], "apply the patch with --apply" in err) == (
        0,
        "/metadata/annotations/vmnic.dev~1exclude",
        True,
    )
    assert datapaths(cluster, namespace) == [None, "sriov"]
    assert run(cluster, "revert", "vm", "v", "-n", namespace, "--apply")[0] == 0
    found = machine_of(cluster, namespace)["spec"]["template"]["spec"]
    assert (found["domain"]["devices"]["interfaces"], found["networks"]) == (
        first["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"], first["spec"]["template"]["spec"]["networks"],
    )  # fmt: skip
    wait_for("it is left alone", lambda: not state_of(cluster, namespace))
    assert "has changed nothing" in run(cluster, "revert", "vm", "v", "-n", namespace)[1]
    assert "does not exist" in run(cluster, "revert", "vm", "gone", "-n", namespace)[2]


def test_capacity_counts_by_pool_node_and_numa_node(cluster, pool):
    pool(reserveForMigration=1)
    wait_for("there are VFs", lambda: (cluster.pf("n1").get("numVfs"), cluster.pf("n2").get("numVfs")) == (7, 7))
    code, out, _ = run(cluster, "capacity", "-o", "json")
    (row,) = json.loads(out)["pools"]
    assert (code, row["name"], row["configured"], row["reserved"], row["free"]) == (0, "fast", 14, 1, 14)
    assert [(node["node"], node["numa"], node["configured"]) for node in row["nodes"]] == [
        ("n1", 0, 7),
        ("n2", 0, 7),
        ("n3", 0, 0),
    ]
    assert "RESERVED" in run(cluster, "capacity")[1]


def status(cluster):
    code, out, _ = run(cluster, "status", "-o", "json")
    return code, {line["what"]: line for line in json.loads(out)["checks"]}


def test_status_summarizes_the_installation(cluster, pool):
    pool("whole", function="Physical", numVfs=None, nodeSelector={"no-such": "label"})
    wait_for("it is looked at", lambda: cluster.api.get("SriovNetworkPool", "whole").get("status", {}).get("conditions"))
    wait_for("all is well", lambda: status(cluster)[0] == 0)
    _, lines = status(cluster)
    assert all(line["ok"] for line in lines.values())
    assert (lines["pool whole"]["ok"], lines["permittedHostDevices vmnic.dev/whole"]["ok"]) == (True, True)
    assert lines["KubeVirt"]["text"].startswith(
        "1.8 assumed, because its status names no version, network binding plugins: macvtap"
    )
    assert "NEXT STEP" in run(cluster, "status")[1]


def test_status_exits_with_1_if_a_node_has_failed(cluster, pool):
    pool(numVfs=8, nodeSelector={"kubernetes.io/hostname": "n1"})
    wait_for("the node has failed", lambda: "NodesFailed" in status(cluster)[1].get("pool fast", {}).get("text", ""))
    code, lines = status(cluster)
    assert (code, lines["pool fast"]["ok"], lines["node n1"]["ok"]) == (1, False, False)
    assert "TooManyVfs" in lines["node n1"]["text"]


def test_tenants_annotation_is_shown_and_not_interpreted(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    notes = {
        "vmnic.dev/network-pressure": "[/foo][link=http://evil.example]a[/link]\x1b[31m\u202e",
        "vmnic.dev/assigned": "[" * 5000,
    }
    cluster.api.create(
        vm("bad", nic(model="e1000e"), namespace=namespace)
        | {"metadata": {"name": "bad", "namespace": namespace, "annotations": notes}}
    )
    cluster.api.create(vm("good", nic(model="e1000e"), namespace=namespace))
    for arguments in (
        ["plan"],
        ["plan", "-o", "markdown"],
        ["explain", "vm", "bad", "-n", namespace],
        ["revert", "vm", "bad", "-n", namespace],
    ):
        code, out, err = run(cluster, *arguments)
        assert (code in (0, 1, 2), (out + err).replace("\n", "").isprintable(), "Traceback" in err) == (True, True, False), err
    assert f"{namespace}/good" in run(cluster, "plan")[1]


def test_status_lists_what_the_controller_has_set_aside(cluster, namespace):
    entry = {"kind": "VirtualMachine", "namespace": namespace, "name": "web", "reason": "TooSlow", "message": "[/foo]"}
    meta = {"name": "vmnic-set-aside", "namespace": "vmnic-system"}
    try:
        cluster.api.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"objects.json": json.dumps([entry])}}
        )
        code, out, _ = run(cluster, "status", "-o", "json")
        assert (code, entry in json.loads(out)["setAside"]) == (1, True)
        assert f"{namespace}/web" in run(cluster, "status")[1].partition("Set aside")[2]
    finally:
        cluster.api.delete("ConfigMap", "vmnic-set-aside", "vmnic-system")
