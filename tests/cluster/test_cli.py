"""`kubectl vmnic` against the live cluster."""

import json
import os
import pathlib
import subprocess
import sys

import yaml

from tests.builders.vm import nic, policy, vm
from tests.harness.api import wait_for

PROGRAM = str(pathlib.Path(sys.executable).with_name("kubectl-vmnic"))


def run(cluster, *arguments, text=None):
    env = os.environ | {"KUBECONFIG": str(cluster.plane.kubeconfig)}
    done = subprocess.run([PROGRAM, *arguments], env=env, input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_policy_from_git_is_compared_with_what_the_cluster_would_do_without_it(cluster, namespace):
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    manifest = yaml.safe_dump(policy("from-git", selector=selector))
    code, out, err = run(cluster, "plan", "-f", "-", "--against", "cluster", "-o", "json", text=manifest)
    assert (code, err) == (1, "")
    assert [(one["namespace"], one["name"]) for one in json.loads(out)["vms"]] == [(namespace, "v")]
    assert cluster.api.get("VmNicPolicy", "from-git") is None


def test_explain_says_why_and_names_what_is_missing(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    cluster.api.create(vm("v", nic(), namespace=namespace, os="windows", run_strategy="Halted"))
    wait_for("it is changed", lambda: run(cluster, "explain", "vm", "v", "-n", namespace)[1].count("Compliant"))
    code, out, _ = run(cluster, "explain", "vm", "v", "-n", namespace, "-o", "json")
    candidates = json.loads(out)["nics"][0]["candidates"]
    assert (code, [one.get("reason") for one in candidates]) == (0, [None, "VirtioNotChosenForWindows"])
    code, _, err = run(cluster, "explain", "vm", "gone", "-n", namespace)
    assert (code, f"VirtualMachine {namespace}/gone is not there" in err) == (2, True)


def test_nodes_shows_every_function_and_refuses_an_unknown_node(cluster):
    code, out, _ = run(cluster, "nodes", "n1", "-o", "json")
    assert (code, [pf["model"] for pf in json.loads(out)[0]["status"]["pfs"]]) == (0, ["82576", "I350"])
    code, _, err = run(cluster, "nodes", "n9")
    assert (code, "node n9 has no NodeNicState" in err) == (2, True)


def test_a_cluster_that_cannot_be_reached_is_an_error_and_no_change(cluster, tmp_path):
    config = yaml.safe_load(cluster.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    code, _, err = run(cluster, "plan", "--kubeconfig", str(tmp_path / "config"))
    assert (code, "https://127.0.0.1:1" in err) == (2, True)
