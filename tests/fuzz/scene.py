"""A cluster in memory whose caches and reconcilers meet one malformed object at a time."""

import asyncio
import contextlib
import copy
from datetime import timedelta

import msgspec

from tests.builders.machines import NAMESPACE, VmScene
from tests.builders.vm import kubevirt, nad, nic, node, node_state, policy, pool, quota, vm, vmi
from vmnic.controller.pools.drain import Drainer
from vmnic.controller.pools.ledger import LedgerStore
from vmnic.controller.pools.networks import NetworkReconciler
from vmnic.controller.pools.nodes import NodeReconciler
from vmnic.controller.pools.reconciler import PoolReconciler
from vmnic.controller.pools.rollouts import Rollouts
from vmnic.kube.client import _decode, _event_decoder
from vmnic.kube.errors import ApiError

RECORD = (
    '{"nics": {"br": {"datapath": "sriov", "resource": "vmnic.dev/fast", "of": 7, "network": "tenants/fast",'
    ' "was": {"interface": {"name": "br", "bridge": {}}, "network": {"name": "br", "multus": {"networkName": "br"}}}}},'
    ' "multiqueue": {"was": true}}'
)


def _machine():
    pair = nic("br", binding="sriov", network="fast", macAddress="02:00:00:00:00:01", bootOrder=1)
    body = vm("odd", nic(model="e1000e", ports=[{"port": 80}]), pair, annotations={"team": "a"})
    spec = body["spec"]["template"]["spec"]
    spec["domain"] |= {
        "resources": {"requests": {"memory": "1Gi"}, "limits": {"vmnic.dev/fast": "2"}},
        "features": {"hyperv": {}},
    }
    spec |= {"nodeSelector": {"rack": "1"}, "evictionStrategy": "LiveMigrate"}
    term = {"matchExpressions": [{"key": "rack", "operator": "In", "values": ["1"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    spec["affinity"] = {"nodeAffinity": required}
    body["spec"] |= {"preference": {"name": "lin"}, "instancetype": {"name": "small"}}
    body["status"] = {"preferenceRef": {"name": "lin", "controllerRevisionRef": {"name": "kept"}}}
    body["metadata"] |= {
        "creationTimestamp": "2026-02-01T00:00:00Z",
        "annotations": {"vmnic.dev/assigned": RECORD, "vmnic.dev/network-pressure": "High", "vmnic.dev/restart": "Never"},
        "managedFields": [{"manager": "argocd", "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {}}}}],
    }
    return body


def _instance():
    body = vmi("odd", macs={"default": "02:00:00:00:00:02", "br": "02:00:00:00:00:01"}, guest="fedora")
    body["spec"] = copy.deepcopy(_machine()["spec"]["template"]["spec"])
    body["metadata"] |= {"uid": "u", "ownerReferences": [{"kind": "VirtualMachine", "name": "odd"}]}
    body["status"]["nodeName"] = "n1"
    return body


def _state():
    body = node_state("n1", held=[0])
    body["metadata"] |= {"generation": 1, "annotations": {"vmnic.dev/approved": "0" * 64}}
    pf = body["status"]["pfs"][0]
    pf |= {"vendor": "8086", "device": "1521", "mtu": 1500, "altNames": ["enp1s0f0"], "hostUse": ["address 10.0.0.1 on ens1f0"]}
    pf["held"][0]["by"] = "pod tenants/virt-launcher-odd-abcde"
    text = "pod tenants/virt-launcher-odd-abcde holds 0000:0b:10.0"
    actions = [{"kind": "SetNumVfs", "value": "3"}]
    pf["plan"] = {"digest": "a" * 64, "actions": actions, "text": "create 3 VFs", "disruptive": True, "blockedBy": [text]}
    pf |= {"problem": {"reason": "HostUsed", "message": "the host uses it"}, "apply": {"digest": "b" * 64, "state": "Applied"}}
    condition = {"type": "Ready", "status": "True", "reason": "AsDesired", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    body["status"] |= {"observedGeneration": 1, "conditions": [condition]}
    return body


def _node():
    body = node("n1", labels={"rack": "1"}, allocatable={"vmnic.dev/fast": "7", "memory": "64Gi"})
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    body["metadata"]["annotations"] = {"vmnic.dev/cordoned": "fast"}
    body["status"]["conditions"] = [ready]
    return body


def _policy():
    body = policy("odd", datapaths=("sriov", "vhost"), existing="Rolling", sriov={"pool": "fast"}, networkPressure="High")
    window = {"schedule": "0 2 * * *", "duration": "4h", "timeZone": "Europe/Berlin"}
    body["spec"]["enforcement"] |= {"window": window, "maxUnavailable": "10%"}
    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}]}
    body["spec"]["selector"] = {"vmSelector": selector, "networks": ["pod", "tenants/*"], "guestOS": ["linux"]}
    body["metadata"] |= {"generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return body


def _pool():
    network = {"name": "fast", "namespaceSelector": {"matchLabels": {"a": "b"}}, "segment": "blue", "vlan": 100}
    body = pool(vfRange="0-6", mtu=9000, queues=8, networks=[network], rollout={"maxUnavailable": "10%", "disruption": "Drain"})
    body["metadata"] |= {"uid": "p", "generation": 1, "finalizers": ["vmnic.dev/nodes"]}
    return body


def _preference():
    devices = {"preferredInterfaceModel": "virtio", "preferredNetworkInterfaceMultiQueue": True}
    spec = {"devices": devices, "annotations": {"vm.kubevirt.io/os": "linux"}}
    return {"metadata": {"name": "lin", "labels": {"instancetype.kubevirt.io/os-type": "linux"}}, "spec": spec}


def _instancetype():
    devices = [{"name": "g", "deviceName": "vendor.com/card"}]
    return {"metadata": {"name": "small"}, "spec": {"cpu": {"guest": 4}, "memory": {"guest": "8Gi"}, "hostDevices": devices}}


def _vm_state():
    restart = {"state": "Restarting", "digest": "d", "at": "2026-01-01T00:00:00Z", "policy": "odd", "instance": "u"}
    reverts = {"digest": "d", "count": 1, "manager": "argocd"}
    return {"metadata": {"name": "odd", "namespace": NAMESPACE}, "status": {"nics": [], "restart": restart, "reverts": reverts}}


def _webhooks():
    return {"metadata": {"name": "network-resources-injector"}, "webhooks": [{"name": "network-resources-injector.k8s.io"}]}


OBJECTS = {
    "virtualmachines": _machine(),
    "virtualmachineinstances": _instance(),
    "virtualmachineclusterpreferences": _preference(),
    "virtualmachineclusterinstancetypes": _instancetype(),
    "network-attachment-definitions": nad(
        "fast", cni="sriov", resource="vmnic.dev/fast", segment="blue", mtu=9000, ipam={"type": "x"}
    ),
    "kubevirts": kubevirt(permitted=[("vmnic.dev/whole", True)], evictionStrategy="LiveMigrate"),
    "resourcequotas": quota(hard={"requests.memory": "8Gi", "requests.vmnic.dev/fast": "3"}, used={"requests.memory": "1Gi"}),
    "nodes": _node(),
    "nodenicstates": _state(),
    "namespaces": {"metadata": {"name": NAMESPACE, "labels": {"kubernetes.io/metadata.name": NAMESPACE}}},
    "sriovnetworkpools": _pool(),
    "vmnicpolicies": _policy(),
    "vmnicstates": _vm_state(),
    "mutatingwebhookconfigurations": _webhooks(),
}
"""One valid object of each kind, with as many fields as decisions read."""
_KINDS = {
    "virtualmachineclusterpreferences": ("instancetype.kubevirt.io/v1beta1", "VirtualMachineClusterPreference"),
    "virtualmachineclusterinstancetypes": ("instancetype.kubevirt.io/v1beta1", "VirtualMachineClusterInstancetype"),
    "namespaces": ("v1", "Namespace"),
    "vmnicstates": ("vmnic.dev/v1alpha1", "VmNicState"),
    "mutatingwebhookconfigurations": ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
}
for _plural, (_version, _kind) in _KINDS.items():
    OBJECTS[_plural] |= {"apiVersion": _version, "kind": _kind}


class FuzzScene(VmScene):
    """All objects, a bystander VM under its own policy, and every reconciler."""

    def __init__(self):
        bystanders = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}
        super().__init__(
            policy("other", datapaths=("vhost",), existing="Immediately", selector=bystanders), restart_timeout=timedelta(0)
        )
        ledger = LedgerStore(self, "vmnic-system")
        drainer = Drainer(self.world, self)
        self.nodes = NodeReconciler(self.world, self, ledger, drainer)
        rollouts = Rollouts(ledger, drainer, self._enqueue)
        self.pools = PoolReconciler(self.world, self, ledger, rollouts, NetworkReconciler(self.world, self), self)
        self.put("namespaces", {"metadata": {"name": "other", "labels": {"kubernetes.io/metadata.name": "other"}}})
        for plural, body in OBJECTS.items():
            self.put(plural, copy.deepcopy(body))
        self.put("nodes", node("n2"))
        self.put("nodenicstates", node_state("n2"))
        self.put("virtualmachines", vm("bystander", nic(model="e1000e"), namespace="other", run_strategy="Halted"))

    def meet(self, plural, raw):
        """Let the caches receive an object as the API server sends it, and run every reconciler once."""
        asyncio.run(self._meet(plural, raw))
        return self

    async def _meet(self, plural, raw):
        try:
            event = await _decode(_event_decoder, b'{"type": "MODIFIED", "object": ' + raw + b"}")
        except msgspec.DecodeError:
            return  # The API server never sends it.
        for cache in self.world.reflectors:
            if cache.resource.plural == plural:
                cache._store(event.object)
        await self._reconcile()

    async def _reconcile(self):
        await self._try(self.machines.allocate())
        for key in list(self.world.machines.items):
            await self._try(self.machines.reconcile(*key))
        await self._try(self.machines.allocate())
        for key in list(self.world.nodes.items):
            await self._try(self.nodes.reconcile(key.name))
        for key in list(self.world.pools.items):
            await self._try(self.pools.reconcile(key.name))
        for key in list(self.world.policies.items):
            await self._try(self.policies.reconcile(key.name))

    async def _try(self, work):
        """The API server may refuse what a decision on junk asks for. Nothing else may fail."""
        with contextlib.suppress(ApiError):
            await work

    @property
    def bystander_is_patched(self):
        body = self.get("virtualmachines", "bystander", "other")
        return body["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"] == "virtio"

    async def read(self, resource, name, namespace=""):
        return copy.deepcopy(self.get(resource.plural, name, namespace))

    async def list_pages(self, resource, namespace="", *, selectors=None):
        found = [
            msgspec.Raw(msgspec.json.encode(body)) for (plural, *_), body in self.bodies.items() if plural == resource.plural
        ]
        yield found, "1"

    async def patch_merge(self, resource, name, body, namespace="", *, subresource=""):
        self._note("status", name)

    async def create(self, resource, body, namespace="", *, name="", subresource=""):
        self._note("write", body["metadata"]["name"])
        self.bodies[resource.plural, namespace, body["metadata"]["name"]] = body | {
            "metadata": body["metadata"] | {"resourceVersion": "1", "uid": "u"}
        }
        return self.bodies[resource.plural, namespace, body["metadata"]["name"]]

    async def replace(self, resource, body, name, namespace="", *, subresource=""):
        self._note(subresource, name)
        self.bodies[resource.plural, namespace, name] = body
        return body

    async def patch_json(self, resource, name, operations, namespace="", *, subresource=""):
        if resource.plural == "virtualmachines" and namespace == "other":
            await super().patch_json(resource, name, operations, namespace)
        else:
            self._note("patch", name)
