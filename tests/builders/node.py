"""Builders of pools, nodes and PFs with good defaults."""

from vmnic.api.node_state import (
    Annotations,
    Apply,
    Held,
    NodeNicState,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    PfPlan,
    PfProblem,
    PfSpec,
    PfStatus,
    VfGroup,
)
from vmnic.api.pool import SriovNetworkPool
from vmnic.nodes.observed import ObservedPf, ObservedVf
from vmnic.nodes.rollout.ledger import NodeView

PF = "0000:0b:00.0"


def pool(name="fast", *, generation=1, created="2026-01-01T00:00:00Z", deleted=None, **spec):
    body = {"nicSelector": {"models": ["82576"]}, "numVfs": 7} | spec
    meta = {
        "name": name,
        "uid": f"uid-{name}",
        "generation": generation,
        "creationTimestamp": created,
        "deletionTimestamp": deleted,
    }
    return SriovNetworkPool.model_validate({"metadata": meta, "spec": body})


def pf_status(address=PF, **changes):
    defaults = {
        "name": "ens1f0", "vendor": "8086", "device": "10c9", "model": "82576", "driver": "igb", "numa_node": 0,
        "link_speed_mbps": 1000, "mtu": 1500, "total_vfs": 7,
    }  # fmt: skip
    if changes.get("num_vfs"):
        defaults |= {"first_vf": "0000:0b:10.0", "vf_stride": 2}
    return PfStatus(pci_address=address, **(defaults | changes))


def pf_spec(address=PF, **changes):
    pool, driver = changes.get("pool", "fast"), changes.pop("driver", "vfio-pci")
    group = VfGroup(pool=pool, resource=f"vmnic.dev/{pool}", driver=driver)
    return PfSpec(**({"pci_address": address, "pool": pool, "num_vfs": 7, "groups": (group,)} | changes))


def observed(*, num_vfs=0, driver="vfio-pci", held=(), **changes):
    if num_vfs > changes.get("total_vfs", 7):
        raise ValueError("no NIC has more VFs than it supports")
    vfs = tuple(
        ObservedVf(index=i, pci_address=f"0000:0b:1{i // 4}.{i % 4 * 2}", driver=driver, held=i in held) for i in range(num_vfs)
    )
    defaults = {"name": "ens1f0", "vendor": "8086", "device": "10c9", "driver": "igb", "mtu": 1500, "total_vfs": 7}
    return ObservedPf(pci_address=PF, num_vfs=num_vfs, vfs=vfs, **({"autoprobe": not num_vfs} | defaults | changes))


def view(
    name,
    *,
    plan="d1",
    apply=None,
    grant=None,
    current=True,
    disruptive=False,
    boot="b1",
    generation=1,
    seen=1,
    num_vfs=0,
    problem=None,
    blocked=(),
    soft=(),
    fenced=False,
    plugin="Embedded",
    approved="",
    release="",
    owned=False,
    synced=True,
    **seen_as,
):
    """Return a node with one PF, where `plan` is its digest and `apply` a pair of digest and state.

    `blocked` are names of pods with the VFs that they would lose, `soft` are holders whose link drops.
    """
    told = tuple(f"pod tenants/{name} holds {vf}" for name, vf in blocked)
    told += tuple(f"{by} loses its link for seconds" for by, _ in soft)
    disrupts = disruptive or bool(told)
    made = PfPlan(
        digest=plan, disruptive=disrupts, text="create 7 VFs", blocked_by=told, soft_blockers=len(soft), fenced=fenced
    )
    held = tuple(Held(vf=vf, by=f"pod tenants/{name}") for name, vf in blocked) + tuple(Held(vf=vf, by=by) for by, vf in soft)
    trouble = PfProblem(reason=problem, message="scripted") if problem else None
    run = Apply(digest=apply[0], state=apply[1]) if apply else None
    group = VfGroup(pool="fast", resource="vmnic.dev/fast", device_plugin=plugin)
    pf = pf_status(plan=made if plan else None, apply=run, num_vfs=num_vfs, problem=trouble, held=held, owned=owned)
    state = NodeNicState(
        metadata=ObjectMeta(name=name, generation=generation, annotations=Annotations(approved=approved)),
        spec=NodeSpec(synced=synced, pfs=(pf_spec(grant=grant, groups=(group,), release=release),)),
        status=NodeStatus(observed_generation=seen, boot_id=boot, pfs=(pf,)),
    )
    return NodeView(name=name, state=state, current=current, **seen_as)
