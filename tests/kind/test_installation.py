"""What `kubectl apply -k` installs in a cluster, and its privileges."""

import json

from tests.harness.cluster import AGENT_NAMESPACE, NAMESPACE

from .measures import at_rest

_STATUS = "print(open('/proc/1/status').read())"
_PYTHON = "/opt/vmnic/bin/python"


def test_every_agent_reports_the_nics_of_its_node(cluster):
    found = {node: cluster.pf(node)["model"] for node in cluster.workers}
    assert set(found.values()) == {"82576"}


def test_the_agent_has_net_admin_and_no_other_capability(cluster):
    status = cluster.kubectl("exec", "-n", AGENT_NAMESPACE, "daemonset/vmnic-agent", "--", _PYTHON, "-c", _STATUS)
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    assert int(effective, 16) == 1 << 12


def test_the_controller_has_no_capability_and_is_not_root(cluster):
    status = cluster.kubectl("exec", "-n", NAMESPACE, "deployment/vmnic-controller", "--", _PYTHON, "-c", _STATUS)
    words = {line.split(":")[0]: line.split()[1:] for line in status.splitlines() if line}
    assert int(words["CapEff"][0], 16) == 0
    assert words["Uid"] == ["65532"] * 4


def test_the_controller_replicas_are_on_different_nodes(cluster):
    pods = cluster.api.list("Pod", NAMESPACE)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2


def test_the_image_contains_its_byte_code(cluster):
    look = "import vmnic.agent.main as it, pathlib, json; print(json.dumps(pathlib.Path(it.__cached__).exists()))"
    shown = cluster.kubectl("exec", "-n", AGENT_NAMESPACE, "daemonset/vmnic-agent", "--", _PYTHON, "-I", "-c", look)
    assert json.loads(shown) is True


def test_memory_and_cpu_at_rest_are_bounded(cluster, figures):
    for what, place in (
        ("agent", (AGENT_NAMESPACE, "daemonset/vmnic-agent")),
        ("controller", (NAMESPACE, "deployment/vmnic-controller")),
    ):
        memory_bytes, cpu_share = at_rest(cluster, *place)
        figures[f"{what} at rest: memory (PSS), CPU of one core"] = f"{memory_bytes / 1e6:.0f} MB, {cpu_share:.1%}"
        assert memory_bytes < {"agent": 96e6, "controller": 256e6}[what]
        assert cpu_share < 0.2
