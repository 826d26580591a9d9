"""Removal of everything. The nodes are restored."""

import json

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE, NAMESPACE

from .installation import OVERLAY
from .pods import POOL, allocatable

_KINDS = (
    "ns,crd,clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingadmissionpolicy,"
    "validatingadmissionpolicybinding,priorityclass,flowschema,prioritylevelconfiguration"
)
_PLACES = ("/var/lib/kubelet/device-plugins", "/var/run/k8s.cni.cncf.io", "/etc/modprobe.d")
"""Directories in which an agent writes on its node, apart from its own directory."""


def test_nothing_has_failed_so_far(cluster):
    for place in ((AGENT_NAMESPACE, "daemonset/vmnic-agent"), (NAMESPACE, "deployment/vmnic-controller")):
        log = cluster.kubectl("logs", "-n", *place, "--all-pods=true", "--tail=-1")
        assert not [line for line in log.splitlines() if '"exception"' in line or "Traceback" in line]


def test_a_deleted_pool_leaves_no_vf(cluster):
    cluster.kubectl("delete", "snp", POOL, "--timeout=60s")
    wait_for("no VF is left", lambda: not any(cluster.vfs(node) for node in cluster.workers))
    wait_for("nothing is allocatable", lambda: all(allocatable(cluster, node) <= 0 for node in cluster.workers))


def test_deleting_the_overlay_leaves_nothing(cluster):
    cluster.kubectl("delete", "-k", OVERLAY, "--timeout=120s")
    wait_for("nothing is left", lambda: "vmnic" not in cluster.kubectl("get", _KINDS, "-o", "name"), 60)
    for node in cluster.workers:
        assert cluster.run_in(node, "find", *_PLACES, "-name", "*vmnic*") == ""
        journal = json.loads(cluster.run_in(node, "cat", "/var/lib/vmnic/journal.json"))
        assert not [address for address, record in journal["pfs"].items() if record["original"] or record["running"]]
