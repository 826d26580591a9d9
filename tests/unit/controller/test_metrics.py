"""What the controller serves is what is documented; here without a cluster, in the cluster tier from its real process."""

import ssl

import pytest

from tests.builders.metrics import differences, value
from tests.builders.vm import policy
from vmnic.api.policy import VmNicPolicy
from vmnic.controller.keys import log_keys, node_key, vm_key
from vmnic.controller.ledger import LedgerStore
from vmnic.controller.metrics import CONTROLLER_METRICS, ControllerMetrics, StateCollector
from vmnic.controller.world import World
from vmnic.kube.client import ApiClient
from vmnic.kube.connection import Connection
from vmnic.kube.errors import ConflictError, TooManyRequestsError
from vmnic.kube.reflector import ObjectKey
from vmnic.kube.workqueue import WorkQueue


class Rig:
    def __init__(self):
        self.leads = True
        self.metrics = ControllerMetrics()
        self.queue = WorkQueue()
        api = ApiClient(Connection("http://nowhere.invalid", ssl.create_default_context(), lambda: ""), field_manager="test")
        api.writes["PATCH virtualmachines"] += 2
        self.world = World(api, lambda key, after_s=0.0: None)
        state = StateCollector(self.world, LedgerStore(api, "vmnic-system"), self.queue, lambda: self.leads)
        self.metrics.show(state, api.writes)

    async def scrape(self):
        return (await self.metrics.render()).decode()


@pytest.fixture
def rig():
    return Rig()


async def test_what_is_served_is_what_is_documented(rig):
    rig.metrics.worked(node_key("n1"), 0.1, None)
    rig.metrics.reviewed("policy", "unchanged", 0.1)
    assert differences(await rig.scrape(), CONTROLLER_METRICS) == []


async def test_looks_errors_and_writes_are_counted(rig):
    rig.queue.add(vm_key("tenants", "web"))
    conflict, throttled = (kind(status=0, reason="", message="") for kind in (ConflictError, TooManyRequestsError))
    for error in (None, conflict, throttled, ValueError("bug")):
        rig.metrics.worked(vm_key("tenants", "web"), 0.01, error)
    text = await rig.scrape()
    assert value(text, "vmnic_queue_depth", kind="vm") == 1
    assert value(text, "vmnic_reconcile_seconds_count", kind="vm") == 4
    causes = {
        cause: value(text, "vmnic_reconcile_errors_total", kind="vm", cause=cause)
        for cause in ("changed", "throttled", "internal")
    }
    assert causes == {"changed": 1, "throttled": 1, "internal": 1}
    assert value(text, "vmnic_api_writes_total", verb="PATCH", resource="virtualmachines") == 2


async def test_only_the_leader_tells_about_the_cluster(rig):
    rig.world.policies.items[ObjectKey("", "all")] = VmNicPolicy.model_validate(policy())
    assert value(await rig.scrape(), "vmnic_policy_vms", policy="all", state="matched") == 0
    rig.leads = False
    text = await rig.scrape()
    assert (value(text, "vmnic_policy_vms", policy="all", state="matched"), value(text, "vmnic_leader")) == (None, 0)


def test_a_log_line_about_a_key_has_the_key_of_its_kind():
    assert (log_keys(vm_key("tenants", "web")), log_keys(node_key("n1"))) == ({"vm": "tenants/web"}, {"node": "n1"})
    assert str(vm_key("tenants", "web")) == "vm tenants/web"
