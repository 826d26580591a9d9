"""Random scenes from a seed: an unusual but valid VM, with policies and a cluster.

The cluster tier tests what KubeVirt accepts of such VMs and their patches, the unit tier the properties of the engine.
"""

import random

from .vm import kubevirt, nad, node_state, policy, pool, quota, vmi

NAMESPACE = "judged"
MODELS = [None, None, "virtio", "virtio", "e1000e", "e1000", "rtl8139", "igb", "ne2k_pci", "pcnet"]
NETWORKS = {
    "br": nad("br", namespace=NAMESPACE, segment="blue"),
    "plain": nad("plain", namespace=NAMESPACE),
    "fast": nad("fast", namespace=NAMESPACE, cni="sriov", resource="vmnic.dev/fast", segment="blue"),
    "tap": nad("tap", namespace=NAMESPACE, cni="macvtap", resource="macvtap.network.kubevirt.io/ens1f0", segment="blue"),
    "jumbo": nad("jumbo", namespace=NAMESPACE, segment="green", mtu=9000),
    "jumbofast": nad("jumbofast", namespace=NAMESPACE, cni="sriov", resource="vmnic.dev/fast", segment="green"),
    "leased": nad("leased", namespace=NAMESPACE, segment="red", ipam={"type": "host-local"}, accept="IpamNotCarried"),
    "guarded": nad("guarded", namespace=NAMESPACE, segment="blue", macspoofchk=True),
    "leasedfast": nad("leasedfast", namespace=NAMESPACE, cni="sriov", resource="vmnic.dev/fast", segment="red"),
}
TYPES = [
    {"kind": "VirtualMachineInstancetype", "metadata": {"name": "small", "namespace": NAMESPACE}, "spec": {"cpu": {"guest": 4}, "memory": {"guest": "8Gi"}}},
    {
        "kind": "VirtualMachineInstancetype", "metadata": {"name": "devices", "namespace": NAMESPACE},
        "spec": {"cpu": {"guest": 2}, "memory": {"guest": "4Gi"}, "hostDevices": [{"name": "card", "deviceName": "vendor.com/card"}]},
    },
]  # fmt: skip
PREFERENCES = [
    {
        "kind": "VirtualMachinePreference", "metadata": {"name": "win", "namespace": NAMESPACE, "labels": {"instancetype.kubevirt.io/os-type": "windows"}},
        "spec": {"devices": {"preferredInterfaceModel": "e1000e"}},
    },
    {
        "kind": "VirtualMachinePreference", "metadata": {"name": "lin", "namespace": NAMESPACE},
        "spec": {"devices": {"preferredInterfaceModel": "virtio", "preferredNetworkInterfaceMultiQueue": True}, "annotations": {"vm.kubevirt.io/os": "linux"}},
    },
]  # fmt: skip
ACCEPTABLE = [
    "IpamNotCarried",
    "MtuDiffers",
    "GuestMtuChanges",
    "PropertyNotCarried/macspoofchk",
    "PropertyNotCarried/bootOrder",
]
PERMITTED = ["vmnic.dev/whole"]


def scene(seed):
    """Return the documents of one scene, the VM first."""
    rng = random.Random(seed)
    machine = _machine(rng)
    documents = [machine, *NETWORKS.values(), *TYPES, *PREFERENCES, *_policies(rng), *_cluster(rng)]
    instance = _instance(rng, machine)
    return [*documents, instance] if instance else documents


def _machine(rng):
    interfaces, networks = _nics(rng)
    typed = rng.choice([None, None, "small", "devices"])
    domain = {"devices": _devices(rng, interfaces, typed)}
    spec = {"domain": domain}
    if typed is None:
        domain |= _size(rng)
        if rng.random() < 0.2:
            spec["nodeSelector"] = {"rack": "1"}
    if rng.random() < 0.15:
        claim = {"claimName": "disk", "hotpluggable": rng.random() < 0.7}
        spec["volumes"] = [{"name": "disk", "persistentVolumeClaim": claim}]
        domain["devices"]["disks"] = [{"name": "disk", "disk": {"bus": "scsi"}}]
    if networks:
        spec["networks"] = networks
    if rng.random() < 0.2:
        spec["evictionStrategy"] = rng.choice(["LiveMigrate", "LiveMigrateIfPossible", "None"])
    os = rng.choice(["linux", "linux", "windows", None])
    template = {"metadata": {"annotations": {"vm.kubevirt.io/os": os}} if os else {}, "spec": spec}
    body = {"template": template}
    body |= rng.choice(
        [{"runStrategy": one} for one in ("Always", "Halted", "Halted", "Manual", "RerunOnFailure")] + [{"running": True}]
    )
    if typed:
        body["instancetype"] = {"name": typed, "kind": "VirtualMachineInstancetype"}
    preferred = rng.choice([None, None, "win", "lin"])
    if preferred:
        body["preference"] = {"name": preferred, "kind": "VirtualMachinePreference"}
    meta = {"name": "web", "namespace": NAMESPACE, "labels": {"app": "web"}, "creationTimestamp": "2026-02-01T00:00:00Z"}
    if rng.random() < 0.5:
        meta["annotations"] = {"team": "a"} | rng.choice(
            [{}, {}, {"vmnic.dev/exclude": "true"}, {"vmnic.dev/network-pressure": "High"}]
        )
    return {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": meta, "spec": body}


def _size(rng):
    """Return CPUs and memory, as topology and guest memory or as the pod's resources alone."""
    if rng.random() < 0.3:
        amounts = {"cpu": rng.choice(["1", "2500m", "9"]), "memory": rng.choice(["512Mi", "4Gi", "64Gi"])}
        return {"resources": rng.choice([{"requests": amounts}, {"requests": amounts, "limits": amounts}])}
    cpu = rng.choice([{"cores": rng.choice([1, 2, 4, 9])}, {"sockets": 2, "cores": 2, "threads": 2}])
    return {"cpu": cpu, "memory": {"guest": rng.choice(["512Mi", "4Gi", "64Gi"])}}


def _devices(rng, interfaces, typed):
    devices = {"interfaces": interfaces} if interfaces else {}
    if not interfaces and rng.random() < 0.3:
        devices["autoattachPodInterface"] = False
    multiqueue = rng.choice([None, None, True, False])
    if multiqueue is not None:
        devices["networkInterfaceMultiqueue"] = multiqueue
    if typed is None and rng.random() < 0.15:
        devices["hostDevices"] = [{"name": "dev0", "deviceName": rng.choice(["vendor.com/card", "vmnic.dev/whole"])}]
    return devices


def _nics(rng):
    interfaces, networks = [], []
    for number in range(rng.choice([0, 1, 1, 2, 2, 3, 5])):
        name = f"nic-{number}" if rng.random() < 0.9 else f"Odd_{number}"
        interface, network = _pod_nic(rng, name) if not number and rng.random() < 0.7 else _secondary_nic(rng, name)
        if rng.random() < 0.3:
            interface["macAddress"] = f"02:00:00:00:{rng.randrange(256):02x}:{number:02x}"
        if rng.random() < 0.2:
            interface["bootOrder"] = number + 1
        if rng.random() < 0.1:
            interface["pciAddress"] = f"0000:81:0{number}.0"
        if rng.random() < 0.1:
            interface["acpiIndex"] = 101 + number
        if rng.random() < 0.1:
            interface["tag"] = f"tag{number}"
        interfaces.append(interface)
        networks.append(network)
    if rng.random() < 0.2:
        rng.shuffle(networks)
    return interfaces, networks


def _with_model(rng, interface):
    model = rng.choice(MODELS)
    return interface | ({"model": model} if model else {})


def _pod_nic(rng, name):
    binding = rng.choice(["masquerade", "masquerade", "bridge"])
    interface = _with_model(rng, {"name": name, binding: {}})
    if binding == "masquerade" and rng.random() < 0.3:
        interface["ports"] = [{"port": 80}]
    return interface, {"name": name, "pod": {}}


def _secondary_nic(rng, name):
    kind = rng.choice(["bridge", "bridge", "bridge", "sriov", "macvtap"])
    network = {"multus": {"networkName": rng.choice(["", f"{NAMESPACE}/"])}, "name": name}
    if kind == "sriov":
        network["multus"]["networkName"] += rng.choice(["fast", "jumbofast", "leasedfast"])
        return {"name": name, "sriov": {}}, network
    if kind == "macvtap":
        network["multus"]["networkName"] += "tap"
        return _with_model(rng, {"name": name, "binding": {"name": "macvtap"}}), network
    network["multus"]["networkName"] += rng.choice(["br", "br", "br", "plain", "jumbo", "leased", "guarded"])
    # Without a binding, KubeVirt 1.8 stores the VM as it is.
    interface = _with_model(rng, {"name": name} | ({"bridge": {}} if rng.random() < 0.95 else {}))
    if rng.random() < 0.2:
        interface["state"] = rng.choice(["up", "down", "absent"])
    if rng.random() < 0.1:
        interface["dhcpOptions"] = {"bootFileName": "boot"}
    return interface, network


def _policies(rng):
    return [
        _policy(rng, name, priority) for name, priority in zip("abc"[: rng.choice([1, 1, 2, 3])], (100, 200, 100), strict=False)
    ]


def _policy(rng, name, priority):
    names = ["emulated", "virtio", "vhost", "macvtap", "sriov", "passthrough"]
    datapaths = ["auto"] if rng.random() < 0.5 else rng.sample(names, rng.randint(1, 4))
    rule = policy(
        name,
        datapaths=datapaths,
        priority=priority,
        action=rng.choice(["Patch", "Patch", "Patch", "Patch", "Audit", "Admit"]),
        existing=rng.choice(["Immediately", "Immediately", "WhenStopped", "Leave", "Rolling"]),
        selector=rng.choice(
            [{"networks": ["*"]}, {"networks": ["*"]}, {"networks": ["pod"]}, {"networks": [f"{NAMESPACE}/*"]}]
        ),
        networkPressure=rng.choice(["Low", "High", "High"]),
        liveMigration=rng.choice(["Preferred", "NotNeeded", "Required"]),
        multiqueue={"mode": rng.choice(["Auto", "Always", "Never"]), "maxQueues": rng.choice([4, 8, 16])},
        emulated={"model": rng.choice(["e1000e", "e1000", "rtl8139", "igb"])},
        accept=rng.sample(ACCEPTABLE, rng.choice([0, 2, 4])),
    )
    if "passthrough" in datapaths or rng.random() < 0.3:
        rule["spec"]["passthrough"] = {"pool": "whole"}
    if rng.random() < 0.3:
        rule["spec"]["sriov"] = {"pool": "fast", "acceptDetach": True}
    rule["metadata"]["creationTimestamp"] = "2026-01-15T00:00:00Z"
    return rule


def _cluster(rng):
    held = range(7) if rng.random() < 0.1 else ()
    nodes = [node_state("n1", held=held), node_state("n2", pool="whole", vfs=0, function="Physical")]
    others = (
        [quota(namespace=NAMESPACE, hard={"memory": "8Gi"}, used={"memory": rng.choice(["1Gi", "7900Mi"])})]
        if rng.random() < 0.1
        else []
    )
    return [kubevirt(permitted=PERMITTED), pool(), pool("whole", function="Physical"), *nodes, *others]


def _instance(rng, machine):
    """Return the VM's VMI, running or starting, or None if the VM is stopped."""
    if machine["spec"].get("runStrategy") in ("Halted", "Manual") or rng.random() < 0.3:
        return None
    devices = machine["spec"]["template"]["spec"]["domain"]["devices"]
    names = [interface["name"] for interface in devices.get("interfaces", [])] or ["default"]
    macs = {name: f"02:11:00:00:00:{number:02x}" for number, name in enumerate(names)} if rng.random() < 0.9 else {}
    return vmi("web", namespace=NAMESPACE, macs=macs, guest=rng.choice([None, None, "mswindows", "fedora"]))
