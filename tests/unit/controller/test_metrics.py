"""The controller serves the documented metrics.

Here without a cluster; the cluster tier reads them from the real process.
"""

import itertools
import ssl
import threading

import pytest

from tests.builders.metrics import differences, value
from tests.builders.vm import policy
from vmnic.api.policy import VmNicPolicy
from vmnic.controller.caches.cluster_cache import ClusterCache
from vmnic.controller.caches.keys import log_keys, node_key, vm_key
from vmnic.controller.metrics import CONTROLLER_METRICS, ControllerMetrics, StateCollector
from vmnic.controller.pools.ledger import LedgerStore
from vmnic.controller.pools.survival import SurvivalCheck
from vmnic.kube.client import ApiClient
from vmnic.kube.connection import Connection
from vmnic.kube.errors import ConflictError, TooManyRequestsError
from vmnic.kube.reflector import ObjectKey
from vmnic.kube.set_aside import SetAside, SetAsideReason
from vmnic.kube.time_budget import OverBudgetError
from vmnic.kube.workqueue import WorkQueue


class Rig:
    def __init__(self):
        self.leads = True
        self.set_aside = SetAside()
        self.metrics = ControllerMetrics(self.set_aside)
        self.queue = WorkQueue()
        api = ApiClient(Connection("http://nowhere.invalid", ssl.create_default_context(), lambda: ""), field_manager="test")
        api.writes["PATCH virtualmachines"] += 2
        self.world = ClusterCache(api, lambda key, after_s=0.0: None)
        self.survival = SurvivalCheck(self.world.devices)
        ledger = LedgerStore(api, "vmnic-system")
        state = StateCollector(self.world, ledger, self.queue, self.survival, lambda: self.leads)
        self.metrics.show(state, api.writes)

    def scrape(self):
        return self.metrics.render().decode()


@pytest.fixture
def rig():
    return Rig()


async def test_served_metrics_are_the_documented_ones(rig):
    rig.metrics.worked(node_key("n1"), 0.1, None)
    rig.metrics.reviewed("policy", "unchanged", 0.1)
    rig.metrics.set_aside(vm_key("tenants", "web"), SetAsideReason.TIME, OverBudgetError("slow"))
    assert differences(rig.scrape(), CONTROLLER_METRICS) == []


async def test_reconciles_errors_and_writes_are_counted(rig):
    rig.queue.add(vm_key("tenants", "web"))
    conflict, throttled = (kind(status=0, reason="", message="") for kind in (ConflictError, TooManyRequestsError))
    for error in (None, conflict, throttled, ValueError("bug")):
        rig.metrics.worked(vm_key("tenants", "web"), 0.01, error)
    text = rig.scrape()
    assert value(text, "vmnic_queue_depth", kind="vm") == 1
    assert value(text, "vmnic_reconcile_seconds_count", kind="vm") == 4
    causes = {
        cause: value(text, "vmnic_reconcile_errors_total", kind="vm", cause=cause)
        for cause in ("changed", "throttled", "internal")
    }
    assert causes == {"changed": 1, "throttled": 1, "internal": 1}
    assert value(text, "vmnic_api_writes_total", verb="PATCH", resource="virtualmachines") == 2


async def test_objects_that_are_set_aside_are_counted(rig):
    key = vm_key("tenants", "web")
    rig.metrics.set_aside(key, SetAsideReason.EXCEPTION, ValueError("bug"))
    rig.metrics.set_aside(key, SetAsideReason.TIME, OverBudgetError("slow"))
    rig.set_aside.add("VirtualMachine", "tenants/other", SetAsideReason.DECODE, "too deep")
    assert value(rig.scrape(), "vmnic_objects_set_aside", kind="VirtualMachine") == 2
    rig.metrics.taken_back(key)
    text = rig.scrape()
    assert value(text, "vmnic_objects_set_aside", kind="VirtualMachine") == 1
    assert value(text, "vmnic_set_aside_total", kind="VirtualMachine", reason="time") == 1


async def test_scrape_while_another_thread_changes_the_caches(rig):
    stop, items = threading.Event(), rig.world.policies.items
    body = VmNicPolicy.model_validate(policy())

    def change():
        for number in itertools.cycle(range(5000)):
            items.pop(ObjectKey("", str(number)), None) or items.update({ObjectKey("", str(number)): body})
            if stop.is_set():
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        assert all("vmnic_leader" in rig.scrape() for _ in range(5))
    finally:
        stop.set()
        thread.join()


async def test_survival_of_a_pool_is_a_gauge_of_the_leader(rig):
    await rig.survival.update("fast", "vmnic.dev/fast")
    assert value(rig.scrape(), "vmnic_pool_survives_node_loss", pool="fast") == 1
    rig.leads = False
    assert value(rig.scrape(), "vmnic_pool_survives_node_loss", pool="fast") is None


async def test_only_the_leader_reports_the_cluster(rig):
    rig.world.policies.items[ObjectKey("", "all")] = VmNicPolicy.model_validate(policy())
    assert value(rig.scrape(), "vmnic_policy_vms", policy="all", state="matched") == 0
    rig.leads = False
    text = rig.scrape()
    assert (value(text, "vmnic_policy_vms", policy="all", state="matched"), value(text, "vmnic_leader")) == (None, 0)


def test_log_line_of_a_key_has_the_field_of_its_kind():
    assert (log_keys(vm_key("tenants", "web")), log_keys(node_key("n1"))) == ({"vm": "tenants/web"}, {"node": "n1"})
    assert str(vm_key("tenants", "web")) == "vm tenants/web"
