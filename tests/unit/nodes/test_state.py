"""NodeNicStates are decoded within their bounds."""

import msgspec
import pytest

from vmnic.api import node_state
from vmnic.nodes.state import decode_node_state


@pytest.mark.parametrize("listed", [False, True], ids=["a stride", "a list of addresses"])
def test_a_node_of_eight_pfs_with_64_vfs_stays_below_16_kB(listed):
    vfs = tuple(node_state.VfRange(range=f"{i * 8}-{i * 8 + 7}", driver="vfio-pci") for i in range(8))
    held = tuple(node_state.Held(vf=f"0000:0b:1{i}.0", by=f"pod tenants/virt-launcher-database-{i}-abcde") for i in range(8))
    pf = node_state.PfStatus(
        pci_address="0000:0b:00.0",
        name="ens1f0np0",
        vendor="8086",
        device="1592",
        driver="ice",
        iommu_group=134,
        total_vfs=256,
        num_vfs=64,
        vf_addresses=tuple(f"a0{index:02x}:00:02.0" for index in range(64)) if listed else (),
        vfs=vfs,
        held=held,
    )
    status = node_state.NodeStatus(pfs=tuple(msgspec.structs.replace(pf, pci_address=f"0000:0{i}:00.0") for i in range(8)))
    assert len(msgspec.json.encode(status)) < 16 * 1024


@pytest.mark.parametrize(
    ("count", "hard", "soft"),
    [(0, ("a", "b"), ()), (1, ("a",), ("b",)), (2, (), ("a", "b")), (64, (), ("a", "b"))],
    ids=["none", "the last", "all", "more than there are"],
)
def test_the_last_blockers_are_the_soft_ones(count, hard, soft):
    plan = node_state.PfPlan(digest="d1", blocked_by=("a", "b"), soft_blockers=count)
    assert (plan.hard, plan.soft) == (hard, soft)
    everything = {node_state.blocker_id(text) for text in "ab"}
    assert (plan.unapproved(()), plan.unapproved(everything)) == (("a", "b"), hard)


def decoded(status):
    spec = {"synced": True, "pfs": [{"pciAddress": "0000:0b:00.0", "pool": "fast"}]}
    body = {"metadata": {"name": "n1"}, "spec": spec, "status": {"bootID": "b1"}, "unreadable": "forged"}
    raw = msgspec.json.encode(body)
    return decode_node_state(
        raw.replace(b'{"bootID":"b1"}', status if isinstance(status, bytes) else msgspec.json.encode(status))
    )


def pf_of(**fields):
    return {"bootID": "b1", "pfs": [{"pciAddress": "0000:0b:00.0"} | fields]}


@pytest.mark.parametrize(
    "status",
    [
        pf_of(problem={"reason": "NewWord", "message": "x"}),
        pf_of(apply={"digest": "d" * 16, "state": "New"}),
        pf_of(numVfs=2**62),
        pf_of(numVfs=-1),
        pf_of(numVfs=1.5),
        b'{"pfs":[{"pciAddress":"0000:0b:00.0","numVfs":1e3000}]}',
        b'{"pfs":[{"pciAddress":"0000:0b:00.0","numVfs":' + b"9" * 5000 + b"}]}",
        pf_of(totalVfs=True),
        pf_of(vfStride=2**16),
        pf_of(vfAddresses=["zz"]),
        pf_of(vfAddresses=["a000:00:02.0", "a000:00:02.0"]),
        pf_of(firstVf="zz"),
        pf_of(pciAddress="0000:0b:00.0\n"),
        pf_of(vendor="8086\n"),
        pf_of(vfs=[{"range": "x"}]),
        pf_of(vfs=[{"range": "-3"}]),
        pf_of(vfs=[{"range": "5-3"}]),
        pf_of(vfs=[{"range": "0-30000000"}]),
        pf_of(vfs=[{"range": "0-6"}, {"range": "6-9"}]),
        pf_of(vfs=[{"range": "0"}] * 257),
        pf_of(held=[{"vf": "0000:0b:10.0", "by": "x" * 322}]),
        {"pfs": [{"pciAddress": "0000:0b:00.0"}] * 2},
        {"pfs": [{"pciAddress": f"0000:{bus:02x}:00.0"} for bus in range(65)]},
        {"conditions": [{"type": "Ready", "status": "Perhaps", "reason": "X"}]},
        {"conditions": [{"type": "Ready", "status": "True", "reason": "X", "lastTransitionTime": "never"}]},
    ],
    ids=str,
)
def test_a_status_out_of_bounds_is_set_aside(status):
    found = decoded(status)
    assert (found.metadata.name, found.spec.pfs[0].pool, found.status) == ("n1", "fast", node_state.NodeStatus())
    assert found.unreadable not in ("", "forged")


def test_a_status_within_bounds_is_read():
    found = decoded(pf_of(numVfs=256, vfs=[{"range": "0-255", "driver": "vfio-pci"}]))
    assert (found.status.pfs[0].num_vfs, found.unreadable) == (256, "")


def test_a_state_that_is_nested_too_deeply_is_refused():
    with pytest.raises(ValueError, match="nested too deeply"):
        decoded(b"[" * 100_000 + b"]" * 100_000)


def test_approvals_beyond_8_kB_approve_nothing():
    notes = node_state.Annotations(approved=",".join(["d" * 32] * 300))
    assert node_state.NodeNicState(metadata=node_state.ObjectMeta(name="n1", annotations=notes)).approved == frozenset()
