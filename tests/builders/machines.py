"""VMs around the controller's own reconcilers, with real caches that are filled by hand and a recording API server."""

from datetime import timedelta

import jsonpatch
import msgspec

from tests.builders.vm import vm, vmi
from vmnic.controller.caches.cluster_cache import ClusterCache
from vmnic.controller.caches.keys import Kind, vm_key
from vmnic.controller.vms.policies import PolicyReconciler
from vmnic.controller.vms.reconciler import MachineReconciler
from vmnic.kube.errors import InvalidError
from vmnic.kube.reflector import ObjectKey

NAMESPACE = "tenants"
STALE = InvalidError(status=422, reason="Invalid", message="the server rejected our request due to an error in our request")


class VmScene:
    """Some policies and VMs, and one leader.

    The test delivers events and runs the reconciles that they cause.
    """

    def __init__(self, *policies, restart_timeout=timedelta(minutes=10)):
        self.requests = []
        """Requests as verb and name."""
        self.refusals = {}
        """Errors of requests, by verb. Each error of a list is used once."""
        self.told = []
        self.queue = {}
        self.bodies = {}
        self.leads = True
        self.world = ClusterCache(self, self._enqueue)
        for cache in self.world.reflectors:
            cache.synced.set()
        self.restart_timeout = restart_timeout
        self.lead_anew()
        self.put("vmnicpolicies", *policies)

    def lead_anew(self):
        """Start another leader, which has the same caches and remembers nothing."""
        self.machines = MachineReconciler(self.world, self, self._enqueue, self, restart_timeout=self.restart_timeout)
        self.policies = PolicyReconciler(self.world, self, self.machines, self._enqueue, self)

    def _enqueue(self, key, after_s=0.0):
        if self.leads:
            self.queue.setdefault(key, after_s)

    def tell(self, subject, kind, reason, action, note):
        self.told.append(reason)

    def put(self, plural, *bodies):
        for body in bodies:
            meta = body["metadata"]
            self.bodies[plural, meta.get("namespace", ""), meta["name"]] = body
            self._cache(plural)._store(msgspec.Raw(msgspec.json.encode(body)))

    def remove(self, plural, name, namespace=NAMESPACE):
        del self.bodies[plural, namespace, name]
        self._cache(plural)._drop(ObjectKey(namespace, name))

    def get(self, plural, name, namespace=NAMESPACE):
        return self.bodies.get((plural, namespace, name))

    def _cache(self, plural):
        return next(one for one in self.world.reflectors if one.resource.plural == plural)

    def add(self, name, *nics, uid="old", **options):
        """Add a VM.

        With a uid, it runs as its spec says.
        """
        body = vm(name, *nics, **options)
        body["metadata"] |= {"uid": f"vm-{name}", "annotations": {"vmnic.dev/restart": ""}}
        self.put("virtualmachines", body)
        if uid:
            self.start(name, uid)

    def start(self, name, uid, phase="Running"):
        """Replace the VM's instance by another one, from its current spec."""
        spec = self.get("virtualmachines", name)["spec"]["template"]["spec"]
        instance = vmi(name, phase=phase, macs={one["name"]: "02:00:00:00:00:01" for one in spec["networks"]})
        instance["metadata"]["uid"] = uid
        instance["spec"] = spec
        instance["status"]["nodeName"] = "n1"
        self.put("virtualmachineinstances", instance)

    def change(self, name, **fields):
        """Change a VM's spec, as a user does."""
        body = self.get("virtualmachines", name)
        self.put("virtualmachines", body | {"spec": body["spec"] | fields})

    async def look(self, name):
        """Reconcile a VM and return the error that the queue would receive."""
        try:
            await self.machines.reconcile(NAMESPACE, name)
        except Exception as error:
            return error
        return None

    def asked_for(self):
        """Return the enqueued VMs, and empty the queue."""
        found = [key.name for key in self.queue if key.kind is Kind.VM]
        self.queue.clear()
        return found

    def state(self, name):
        return (self.get("vmnicstates", name) or {}).get("status", {})

    def note(self, name):
        (found,) = self.machines.notes[ObjectKey(NAMESPACE, name)]
        return found

    def _note(self, verb, name):
        self.requests.append((verb, name))
        refusal = self.refusals.get(verb)
        if isinstance(refusal, list):
            refusal = refusal.pop(0) if refusal else None
        if refusal is not None:
            raise refusal

    async def read(self, resource, name, namespace=""):
        self._note("read", name)
        return self.get(resource.plural, name, namespace)

    async def patch_json(self, resource, name, operations, namespace="", *, subresource=""):
        self._note({"virtualmachines": "patch", "vmnicstates": "write"}.get(resource.plural, "status"), name)
        self.put(resource.plural, jsonpatch.apply_patch(self.get(resource.plural, name, namespace), operations))

    async def create(self, resource, body, namespace=""):
        self._note("write", body["metadata"]["name"])
        self.put(resource.plural, body)

    async def replace(self, resource, body, name, namespace="", *, subresource=""):
        self._note(subresource, name)

    async def delete(self, resource, name, namespace=""):
        self._note("delete", name)
        self.remove(resource.plural, name, namespace)


__all__ = ["NAMESPACE", "STALE", "VmScene", "vm_key"]
