"""The agent's lean structs and the models of the CRD speak of the same fields."""

import msgspec
import pytest

from vmnic.api import common, node_state, vm_state
from vmnic.kubevirt import state as machine_state
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


def test_both_know_the_same_words():
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


@pytest.mark.parametrize(
    "pf", [{"problem": {"reason": "NewWord", "message": "x"}}, {"apply": {"digest": "d1", "state": "New"}}]
)
def test_a_status_with_words_of_a_newer_version_counts_as_none(pf):
    spec = {"synced": True, "pfs": [{"pciAddress": "0000:0b:00.0", "pool": "fast"}]}
    status = {"bootID": "b1", "pfs": [{"pciAddress": "0000:0b:00.0"} | pf]}
    found = state.decode_node_state(msgspec.json.encode({"metadata": {"name": "n1"}, "spec": spec, "status": status}))
    assert (found.metadata.name, found.spec.pfs[0].pool, found.status) == ("n1", "fast", state.NodeStatus())
