"""The agent's lean structs and the models of the CRD have the same fields."""

import msgspec
import pytest

from vmnic.api import common, node_state, vm_state
from vmnic.kubevirt import vm_state as machine_state
from vmnic.nodes import state

PAIRS = [
    (state.Action, node_state.Action),
    (state.Apply, node_state.Apply),
    (state.Held, node_state.Held),
    (state.HostFacts, node_state.HostFacts),
    (state.NodeSpec, node_state.NodeSpec),
    (state.NodeStatus, node_state.NodeStatus),
    (state.PfPlan, node_state.PfPlan),
    (state.PfProblem, node_state.PfProblem),
    (state.PfSpec, node_state.PfSpec),
    (state.PfStatus, node_state.PfStatus),
    (state.VfRange, node_state.VfRange),
    (state.Condition, common.Condition),
    (machine_state.Reverts, vm_state.Reverts),
    (machine_state.Restart, vm_state.Restart),
]


@pytest.mark.parametrize(("lean", "model"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_have_the_same_wire_names(lean, model):
    wire = {field.encode_name for field in msgspec.structs.fields(lean)}
    assert wire == {field.alias for field in model.model_fields.values()}


@pytest.mark.parametrize(("lean", "model"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_require_the_same_fields(lean, model):
    required = {field.encode_name for field in msgspec.structs.fields(lean) if field.required}
    assert required == {field.alias for field in model.model_fields.values() if field.is_required()}


def test_both_have_the_same_enum_values():
    def words(model, field):
        return set(model.model_fields[field].annotation.__args__)

    assert words(node_state.Action, "kind") == set(state.ActionKind)
    assert words(node_state.Apply, "state") == set(state.ApplyState)


def test_a_node_of_eight_pfs_with_64_vfs_stays_below_16_kB():
    vfs = tuple(state.VfRange(range=f"{i * 8}-{i * 8 + 7}", driver="vfio-pci") for i in range(8))
    held = tuple(state.Held(vf=f"0000:0b:1{i}.0", by=f"pod tenants/virt-launcher-database-{i}-abcde") for i in range(8))
    pf = state.PfStatus(
        pci_address="0000:0b:00.0",
        name="ens1f0np0",
        vendor="8086",
        device="1592",
        driver="ice",
        total_vfs=256,
        num_vfs=64,
        vfs=vfs,
        held=held,
    )
    status = state.NodeStatus(pfs=tuple(msgspec.structs.replace(pf, pci_address=f"0000:0{i}:00.0") for i in range(8)))
    assert len(msgspec.json.encode(status)) < 16_000


def decoded(status):
    spec = {"synced": True, "pfs": [{"pciAddress": "0000:0b:00.0", "pool": "fast"}]}
    body = {"metadata": {"name": "n1"}, "spec": spec, "status": {"bootID": "b1"}, "unreadable": "forged"}
    raw = msgspec.json.encode(body)
    return state.decode_node_state(
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
    assert (found.metadata.name, found.spec.pfs[0].pool, found.status) == ("n1", "fast", state.NodeStatus())
    assert found.unreadable not in ("", "forged")


def test_a_status_within_bounds_is_read():
    found = decoded(pf_of(numVfs=256, vfs=[{"range": "0-255", "driver": "vfio-pci"}]))
    assert (found.status.pfs[0].num_vfs, found.unreadable) == (256, "")


def test_a_state_that_is_nested_too_deeply_is_refused():
    with pytest.raises(ValueError, match="nested too deeply"):
        decoded(b"[" * 100_000 + b"]" * 100_000)


def test_approvals_beyond_8_kB_approve_nothing():
    notes = state.Annotations(approved=",".join(["d" * 32] * 300))
    assert state.NodeNicState(metadata=state.ObjectMeta(name="n1", annotations=notes)).approved == frozenset()
