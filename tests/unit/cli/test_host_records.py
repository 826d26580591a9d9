"""`kubectl vmnic plan --host`, and `host record` of cluster and node."""

import json
import pathlib
import subprocess
import sys

import pytest
import yaml
from pydantic import TypeAdapter
from typer.testing import CliRunner

from tests.builders.vm import nad, nic, policy, vm
from vmnic.__main__ import main
from vmnic.cli import host_record
from vmnic.cli.app import app
from vmnic.cli.schema import Plan
from vmnic.records.document import parse_record, read_record_file

HOSTS = pathlib.Path(__file__).parents[2] / "hosts"
POOL = {
    "apiVersion": "vmnic.dev/v1alpha1",
    "kind": "SriovNetworkPool",
    "metadata": {"name": "fast"},
    "spec": {"nicSelector": {"models": ["X710"]}, "numVfs": 8},
}


def plan(*arguments, objects=(POOL,), output="json"):
    """Return exit code, plan and messages."""
    text = yaml.safe_dump_all(objects)
    done = CliRunner().invoke(app, ["plan", "-f", "-", "-o", output, *map(str, arguments)], input=text)
    return done.exit_code, json.loads(done.stdout) if output == "json" else done.stdout, done.stderr


def rows(made):
    return {(node["node"], node["pf"]): node for pool in made["pools"] for node in pool["nodes"]}


def test_pools_are_planned_on_recorded_hosts():
    code, made, _ = plan("--host", HOSTS / "x710-two-pools.yaml", "--host", HOSTS / "ubuntu-built-in.yaml")
    TypeAdapter(Plan).validate_python(made, strict=True)
    found = rows(made)
    assert code == 1
    assert found["x710-two-pools", "0000:65:00.0"]["disruptive"]
    assert found["ubuntu-built-in", "0000:65:00.0"]["problem"]["reason"] == "ModuleMissing"
    assert {one["reason"] for one in made["problems"]} == {"ModuleMissing", "CapacityPlanned"}


@pytest.mark.parametrize("output", ["table", "markdown"])
def test_table_and_markdown_show_blockers_and_problems(output):
    _, text, _ = plan("--host", HOSTS / "x710-two-pools.yaml", "--host", HOSTS / "ubuntu-built-in.yaml", output=output)
    for part in ("x710-two-pools", "create 8 VFs", "virt-launcher-mail", "ModuleMissing", "CapacityPlanned"):
        assert part in text


def test_records_may_be_a_directory_or_among_the_files(tmp_path):
    record = yaml.safe_load((HOSTS / "ubuntu-built-in.yaml").read_text())
    (tmp_path / "n.yaml").write_text((HOSTS / "ubuntu-built-in.yaml").read_text())
    _, of_directory, _ = plan("--host", tmp_path)
    _, among, _ = plan(objects=[POOL, record])
    assert rows(of_directory) == rows(among) != {}


def test_a_record_and_a_state_of_one_node_are_an_error():
    state = {"apiVersion": "vmnic.dev/v1alpha1", "kind": "NodeNicState", "metadata": {"name": "ubuntu-built-in"}}
    code, _, messages = plan("--host", HOSTS / "ubuntu-built-in.yaml", objects=[POOL, state])
    assert code == 2
    assert "HostRecord ubuntu-built-in: its node has a NodeNicState too" in messages


def test_two_records_of_one_node_are_an_error(tmp_path):
    (tmp_path / "other.yaml").write_text((HOSTS / "ubuntu-built-in.yaml").read_text())
    code, _, messages = plan("--host", HOSTS / "ubuntu-built-in.yaml", "--host", tmp_path)
    assert code == 2
    assert f"{tmp_path}: HostRecord ubuntu-built-in: the same host is given twice: remove one of them" in messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{metadata: {name: n1}, links: [{index: 2}]}", "links[0]: Object missing required field `name`: correct it"),
        ("{metadata: {name: n1}, speed: 1}", "the document: Object contains unknown field `speed`"),
        ("{metadata: {name: n1, annotations: {a: b}}}", "metadata: Object contains unknown field `annotations`"),
    ],
)
def test_a_wrong_record_is_named_with_file_and_path(tmp_path, text, message):
    file = tmp_path / "host.yaml"
    document = {"apiVersion": "cli.vmnic.dev/v1alpha1", "kind": "HostRecord"} | yaml.safe_load(text)
    file.write_text(yaml.safe_dump(document))
    code, _, messages = plan("--host", file)
    assert code == 2
    assert f"{file}:1: HostRecord n1: {message}" in messages


def test_what_is_no_record_is_not_taken_as_a_host(tmp_path):
    file = tmp_path / "pool.yaml"
    file.write_text(yaml.safe_dump(POOL))
    code, _, messages = plan("--host", file)
    assert code == 2
    assert f"{file}: 1 objects there are no HostRecord: give them with -f" in messages


def test_a_host_needs_pools_from_files():
    done = CliRunner().invoke(app, ["plan", "--host", str(HOSTS)])
    assert done.exit_code == 2
    assert "give them with -f" in done.stderr


def test_unknown_labels_select_every_pool_and_are_told():
    selecting = POOL | {"spec": POOL["spec"] | {"nodeSelector": {"rack": "z"}}}
    _, made, _ = plan("--host", HOSTS / "half-known.yaml", "--host", HOSTS / "ubuntu-built-in.yaml", objects=[selecting])
    assert {node for node, _ in rows(made)} == {"half-known"}
    unknown = [one["message"] for one in made["problems"] if one["reason"] == "Unknown"]
    assert [one for one in unknown if "labels of half-known" in one] == [
        "labels of half-known are unknown, so every nodeSelector matches: add metadata.labels"
    ]


def test_labels_of_a_given_node_count():
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "half-known", "labels": {"rack": "a"}}}
    selecting = POOL | {"spec": POOL["spec"] | {"nodeSelector": {"rack": "z"}}}
    _, made, _ = plan("--host", HOSTS / "half-known.yaml", objects=[selecting, node])
    assert rows(made) == {}
    assert not any(one["object"] == "HostRecord" and "labels" in one["message"] for one in made["problems"])


@pytest.mark.parametrize(("host", "verdict"), [("x710-two-pools", "Change"), ("ubuntu-built-in", "Blocked")])
def test_policies_count_what_the_plans_would_leave(host, verdict):
    objects = [
        POOL,
        policy(datapaths=["sriov"], sriov={"pool": "fast"}),
        vm("web", nic("net1", binding="bridge", network="a")),
        nad("a", segment="s"),
        nad("vfs", segment="s", resource="vmnic.dev/fast", cni="sriov"),
    ]
    _, made, _ = plan("--host", HOSTS / f"{host}.yaml", objects=objects)
    assert made["vms"][0]["nics"][0]["verdict"] == verdict
    assert ("CapacityPlanned" in {one["reason"] for one in made["problems"]}) == (verdict == "Change")


def record_this_host(tmp_path, *arguments):
    """Record the machine that the tests run on, in a process of its own."""
    kubelet = ["--node", "me", "--pod-resources", str(tmp_path / "a"), "--device-plugins", str(tmp_path / "b")]
    command = [sys.executable, "-m", "vmnic", "host", "record", *kubelet, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_record_of_this_host_can_be_read(tmp_path):
    file = tmp_path / "me.yaml"
    done = record_this_host(tmp_path, "-o", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert read_record_file(file).metadata.name == "me"


def test_an_anonymous_record_of_this_host_can_be_read(tmp_path):
    done = record_this_host(tmp_path, "--anonymise")
    assert parse_record(done.stdout, "text").metadata.name == "node1"


@pytest.mark.parametrize("arguments", [["-o", "/proc/none/file"], ["--host", "sim:/proc/none"]])
def test_a_host_that_cannot_be_recorded_is_told(tmp_path, arguments):
    done = record_this_host(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("vmnic host record: ")


class Kubectl:
    """A kubectl that prints what it is given, and records its arguments."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    def __call__(self, command, **_):
        self.calls.append(command)
        code, out, err = self.answers.pop(0)
        return subprocess.CompletedProcess(command, code, out, err)


PODS = json.dumps({"items": [{"metadata": {"namespace": "vmnic-agents", "name": "vmnic-agent-x"}}]})


def record(monkeypatch, *answers, arguments=()):
    kubectl = Kubectl(*answers)
    monkeypatch.setattr(host_record.subprocess, "run", kubectl)
    return CliRunner().invoke(app, ["host", "record", "n1", *arguments]), kubectl


def test_the_record_of_a_node_comes_from_its_agent(monkeypatch, tmp_path):
    text = (HOSTS / "ubuntu-built-in.yaml").read_text()
    file = tmp_path / "n1.yaml"
    done, kubectl = record(monkeypatch, (0, PODS, ""), (0, text, ""), arguments=["--anonymise", "-o", str(file)])
    assert done.exit_code == 0
    assert read_record_file(file) == read_record_file(HOSTS / "ubuntu-built-in.yaml")
    assert kubectl.calls[1][-3:] == ("host", "record", "--anonymise")
    assert "spec.nodeName=n1,status.phase=Running" in kubectl.calls[0]


def test_the_record_of_a_node_is_printed(monkeypatch):
    text = (HOSTS / "ubuntu-built-in.yaml").read_text()
    done, _ = record(monkeypatch, (0, PODS, ""), (0, text, ""))
    assert parse_record(done.stdout, "text") == read_record_file(HOSTS / "ubuntu-built-in.yaml")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([(0, '{"items": []}', "")], "no agent runs on node n1"),
        ([(0, PODS, ""), (1, "", "pods is forbidden")], "it needs the right to create pods/exec in namespace vmnic-agents"),
        ([(1, "", "pods is forbidden")], "it needs the right to list pods"),
        ([(0, "no json", "")], "printed no list of pods"),
        ([(0, PODS, ""), (0, "kind: Pod\n", "")], "the agent on n1: kind: Invalid enum value"),
    ],
)
def test_what_keeps_a_record_from_being_fetched_is_told(monkeypatch, answers, message):
    done, _ = record(monkeypatch, *answers)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_simulated_host_takes_either_a_record_or_a_description(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["simhost", "--socket", str(tmp_path / "s")])
    assert ended.value.code == 2
    assert "give either --spec or --record" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "message"), [("host-bond-on-vf", "links[bond0]"), ("nothing", "nothing.yaml")])
def test_a_record_that_cannot_be_simulated_is_named(capsys, tmp_path, name, message):
    file = HOSTS / f"{name}.yaml"
    assert main(["simhost", "--record", str(file), "--socket", str(tmp_path / "s")]) == 2
    assert message in capsys.readouterr().err
