"""Decisions about objects that are given as dictionaries, made as `kubectl vmnic plan` makes them."""

import copy

import jsonpatch

from vmnic.cli.objects import Objects
from vmnic.cli.offline import decide_all
from vmnic.kubevirt.patch import render_patch


def collect(*documents):
    objects = Objects()
    for document in documents:
        objects.add(copy.deepcopy(document))
    return objects


def decide(*documents, offline=False, new=()):
    """Decide all VMs among some objects."""
    return decide_all(collect(*documents), offline=offline, new=[("tenants", name) for name in new])


def decision(*documents, **options):
    """Decide the only VM among some objects."""
    (found,) = decide(*documents, **options).vms
    return found


def first(*documents, **options):
    """Decide the first NIC of the only VM."""
    return decision(*documents, **options).nics[0]


def told(nic_decision):
    """Return datapath and reason of each candidate."""
    return [(one.datapath.value, one.finding.reason.value if one.finding else None) for one in nic_decision.candidates]


def patches(*documents, **options):
    """Return the patch of every VM, by name."""
    objects = collect(*documents)
    decided = decide_all(
        objects, offline=options.pop("offline", False), new=[("tenants", name) for name in options.pop("new", ())]
    )
    return {
        one.vm.name: render_patch(one, objects.machines[one.vm.namespace, one.vm.name], decided.capacity.total)
        for one in decided.vms
    }


def apply_patches(documents, **options):
    """Return the objects with every patch applied, as the API server would."""
    made = patches(*documents, **options)
    return [
        jsonpatch.apply_patch(one, made[one["metadata"]["name"]]) if one["kind"] == "VirtualMachine" else one
        for one in documents
    ]
