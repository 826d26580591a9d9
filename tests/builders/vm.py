"""VirtualMachines as KubeVirt takes them, with good defaults."""


def nic(name="default", *, binding="masquerade", network=None, **fields):
    """An interface with its network."""
    where = {"pod": {}} if network is None else {"multus": {"networkName": network}}
    return {"name": name, binding: {}, **fields}, {"name": name, **where}


def vm(name="web", *nics, namespace="tenants", os="linux", run_strategy="Always", labels=None, annotations=None, **spec):
    """A VirtualMachine; without NICs it has one on the pod network."""
    pairs = nics or (nic(),)
    notes = ({"vm.kubevirt.io/os": os} if os else {}) | (annotations or {})
    domain = {"cpu": {"cores": 2}, "memory": {"guest": "1Gi"}, "devices": {"interfaces": [pair[0] for pair in pairs]}}
    template = {"metadata": {"annotations": notes}, "spec": {"domain": domain, "networks": [pair[1] for pair in pairs]}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"runStrategy": run_strategy, "template": template, **spec},
    }


def vmi(name="web", *, namespace="tenants", macs=None, guest=None, models=None, phase="Running"):
    """A VirtualMachineInstance."""
    status = {"phase": phase, "interfaces": [{"name": nic, "mac": mac} for nic, mac in (macs or {}).items()]}
    if guest:
        status["guestOSInfo"] = {"id": guest}
    interfaces = [{"name": nic, "model": model} for nic, model in (models or {}).items()]
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"domain": {"devices": {"interfaces": interfaces}}},
        "status": status,
    }


def policy(name="all", *, datapaths=("auto",), priority=100, action="Patch", existing="WhenStopped", selector=None, **spec):
    """A VmNicPolicy that selects every NIC."""
    return {
        "apiVersion": "vmnic.dev/v1alpha1",
        "kind": "VmNicPolicy",
        "metadata": {"name": name},
        "spec": {
            "priority": priority,
            "selector": selector or {"networks": ["*"]},
            "datapaths": list(datapaths),
            "enforcement": {"action": action, "existingVMs": existing},
            **spec,
        },
    }
