"""Objects of users and of KubeVirt, with good defaults."""

import json

from vmnic.nodes.nics import read_models


def nic(name="default", *, binding="masquerade", network=None, **fields):
    """Return an interface and its network."""
    where = {"pod": {}} if network is None else {"multus": {"networkName": network}}
    return {"name": name, binding: {}, **fields}, {"name": name, **where}


def vm(name="web", *nics, namespace="tenants", os="linux", run_strategy="Always", labels=None, annotations=None, **spec):
    """Return a VirtualMachine. Without NICs it has one on the pod network."""
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
    """Return a VirtualMachineInstance."""
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
    """Return a VmNicPolicy that selects every NIC by default."""
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


def nad(name, *, namespace="tenants", cni="bridge", resource=None, segment=None, accept=None, **config):
    """Return a NetworkAttachmentDefinition."""
    annotations = {"k8s.v1.cni.cncf.io/resourceName": resource} if resource else {}
    annotations |= {"vmnic.dev/accept": accept} if accept else {}
    labels = {"vmnic.dev/segment": segment} if segment else {}
    meta = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
    body = {"cniVersion": "1.0.0", "name": name, "type": cni} | config
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": meta,
        "spec": {"config": json.dumps(body)},
    }


def kubevirt(*, version="v1.8.2", gates=("HostDevices",), plugins=("macvtap",), permitted=(), disabled=(), **configuration):
    """Return the KubeVirt resource.

    `permitted` contains resources, or pairs of resource and externalResourceProvider.
    """
    pairs = [(one, True) if isinstance(one, str) else one for one in permitted]
    devices = [
        {"pciVendorSelector": "8086:10fb", "resourceName": name, "externalResourceProvider": external}
        for name, external in pairs
    ]
    developer = {"featureGates": list(gates), "disabledFeatureGates": list(disabled)} | configuration.pop("developer", {})
    body = {
        "developerConfiguration": developer,
        "network": {"binding": {name: {"domainAttachmentType": "tap"} for name in plugins}},
        "permittedHostDevices": {"pciHostDevices": devices},
        **configuration,
    }
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {"configuration": body},
        "status": {"observedKubeVirtVersion": version},
    }


def quota(*, namespace="tenants", name="q", hard=None, used=None):
    """Return a ResourceQuota."""
    meta = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": meta,
        "spec": {"hard": hard or {}},
        "status": {"used": used or {}},
    }


def pool(name="fast", *, models=("I350",), function="Virtual", num_vfs=7, **spec):
    """Return a SriovNetworkPool."""
    body = {"nicSelector": {"models": list(models)}, "function": function, **spec}
    body |= {"numVfs": num_vfs} if function == "Virtual" else {}
    return {"apiVersion": "vmnic.dev/v1alpha1", "kind": "SriovNetworkPool", "metadata": {"name": name}, "spec": body}


def node_state(name="n1", *, pool="fast", vfs=7, model="I350", held=(), modules=("vhost_net",), function="Virtual"):
    """Return a NodeNicState with one prepared PF of a pool. `held` contains numbers of VFs."""
    driver = "vfio-pci" if function == "Physical" else "igb"
    address = "0000:0b:00.0"
    pf = {"pciAddress": address, "model": model, "driver": driver, "totalVfs": 7, "numVfs": vfs, "name": "ens1f0"}
    pf |= next({"vendor": nic.vendor, "device": nic.pf[0]} for nic in read_models() if nic.model == model)
    pf |= {"firstVf": "0000:0b:10.0", "vfStride": 2, "vfs": [{"range": f"0-{vfs - 1}", "driver": "vfio-pci"}]} if vfs else {}
    pf["held"] = [{"vf": f"0000:0b:1{number * 2 // 8}.{number * 2 % 8}"} for number in held]
    groups = [{"pool": pool, "resource": f"vmnic.dev/{pool}"}]
    spec = {
        "synced": True,
        "pfs": [{"pciAddress": address, "pool": pool, "numVfs": vfs, "function": function, "groups": groups}],
    }
    return {
        "apiVersion": "vmnic.dev/v1alpha1",
        "kind": "NodeNicState",
        "metadata": {"name": name},
        "spec": spec,
        "status": {"bootID": "b", "host": {"iommu": True, "modules": list(modules)}, "pfs": [pf]},
    }


def node(name="n1", *, labels=None, unschedulable=False, allocatable=None):
    """Return a Node."""
    spec = {"unschedulable": True} if unschedulable else {}
    meta = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec, "status": {"allocatable": allocatable or {}}}


def preference(name="linux", *, model=None, multiqueue=None, os=None, namespace="tenants", cluster=False):
    """Return a VirtualMachinePreference, or a cluster-wide one."""
    devices = {"preferredInterfaceModel": model, "preferredNetworkInterfaceMultiQueue": multiqueue}
    labels = {"instancetype.kubevirt.io/os-type": os} if os else {}
    return {
        "apiVersion": "instancetype.kubevirt.io/v1beta1",
        "kind": "VirtualMachineClusterPreference" if cluster else "VirtualMachinePreference",
        "metadata": {"name": name, "labels": labels, **({} if cluster else {"namespace": namespace})},
        "spec": {"devices": devices},
    }


def instancetype(name="small", *, cpus=2, namespace="tenants", **spec):
    """Return a VirtualMachineInstancetype."""
    return {
        "apiVersion": "instancetype.kubevirt.io/v1beta1",
        "kind": "VirtualMachineInstancetype",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"cpu": {"guest": cpus}, **spec},
    }


def revision(name, body, *, labelled=True):
    """Return the ControllerRevision in which KubeVirt keeps an object. KubeVirt removes the object's labels."""
    meta = body["metadata"]
    labels = {
        f"instancetype.kubevirt.io/object-{key}": value for key, value in (("kind", body["kind"]), ("name", meta["name"]))
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": "tenants", "labels": labels if labelled else {}},
        "data": body | {"metadata": {key: value for key, value in meta.items() if key != "labels"}},
        "revision": 0,
    }
