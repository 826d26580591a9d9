"""VMs that run on nodes with VFs, as drains and losses meet them."""

from tests.builders.vm import kubevirt, nad, nic, node, node_state, pool, vm, vmi

FAST = "vmnic.dev/fast"
BASE = (kubevirt(), pool(), nad("fast", cni="sriov", resource=FAST))


def host(name, *, vfs=7, held=None, taints=(), **options):
    """Return a Node and its NodeNicState. `held` has the number of a VF by the pod that holds it."""
    state = node_state(name, vfs=vfs, held=list(held or ()))
    for entry, by in zip(state["status"]["pfs"][0]["held"], (held or {}).values(), strict=True):
        entry["by"] = by
    one = node(name, allocatable={FAST: str(vfs)}, **options)
    one["spec"]["taints"] = list(taints)
    return one, state


def running(
    name,
    where="n1",
    *,
    strategy=None,
    vfs=1,
    migratable=True,
    devices=(),
    run_strategy="Always",
    owned=True,
    os="linux",
    **spec,
):
    """Return a VirtualMachine with VFs and its VirtualMachineInstance. `spec` has further fields of both."""
    nics = [nic(f"fast{number}", binding="sriov", network="fast") for number in range(vfs)] or [nic()]
    machine, instance = vm(name, *nics, run_strategy=run_strategy, os=os), vmi(name)
    template = machine["spec"]["template"]["spec"]
    template |= spec | ({"evictionStrategy": strategy} if strategy else {})
    template["domain"]["devices"]["hostDevices"] = [{"name": one, "deviceName": "gpu.example/a"} for one in devices]
    instance["spec"] = template
    instance["status"]["nodeName"] = where
    if migratable is not None:
        word = {"status": "True"} if migratable else {"status": "False", "reason": "HostDeviceNotLiveMigratable"}
        instance["status"]["conditions"] = [{"type": "LiveMigratable", **word}]
    if not owned:
        return (instance,)
    instance["metadata"]["ownerReferences"] = [{"kind": "VirtualMachine", "name": name}]
    return machine, instance
