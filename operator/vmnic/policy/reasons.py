"""Reasons that a decision about a NIC may carry.

The reference table is generated from the docstrings.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """Why a candidate is excluded, or why a NIC is blocked or waits.

    For one candidate the first reason that applies counts.
    """

    PREFERENCE_UNKNOWN = "PreferenceUnknown"
    """The VM's preference or instancetype, or the ControllerRevision in which the VM keeps it, is missing or unreadable, and it
    decides about the NIC; the message names it. The NIC stays as it is. Correct or add that object, or write what is missing
    into the VM, such as the NIC's `model`."""
    GUEST_OS_UNKNOWN = "GuestOsUnknown"
    """Nothing tells what guest this is. Set the annotation vm.kubevirt.io/os on the template, use a preference, or install
    the guest agent."""
    VIRTIO_NOT_CHOSEN_FOR_WINDOWS = "VirtioNotChosenForWindows"
    """`auto` does not choose virtio for Windows, where brief disconnects have been seen. Name vhost in `datapaths`."""
    NOT_PREFERRED = "NotPreferred"
    """A candidate before it was chosen. Put this one first in `datapaths` to have it."""
    NOT_ON_ARCHITECTURE = "NotOnArchitecture"
    """The guest's CPU architecture is not x86, and there the emulated models are missing: the VM would not start. Name vhost in
    `datapaths`."""
    POD_NETWORK = "PodNetwork"
    """The NIC is on the pod network, which is never a VF's, macvtap's or a whole NIC's. Use a secondary network."""
    NO_EQUIVALENT_NETWORK = "NoEquivalentNetwork"
    """The NIC's network is not offered over this datapath, and a change must not move the VM to another one. Give both
    NetworkAttachmentDefinitions the same label vmnic.dev/segment."""
    IPAM_NOT_CARRIED = "IpamNotCarried"
    """The guest would lose its IP address: the network that offers the datapath assigns addresses in another way, or KubeVirt's
    bridge binding has handed the address of `ipam` to the guest, which no other binding does. Use the network's own DHCP
    server, or accept it in `spec.accept` of the policy or with vmnic.dev/accept on the NetworkAttachmentDefinition."""
    MTU_DIFFERS = "MtuDiffers"
    """The network that offers the datapath has another MTU. Make the `mtu` of both equal, or accept it like IpamNotCarried."""
    GUEST_MTU_CHANGES = "GuestMtuChanges"
    """The guest would use another MTU: virtio takes the network's, emulated models and VFs use 1500. Connections break if the
    network's other hosts expect the present one. Make the network's `mtu` 1500, or accept it like IpamNotCarried."""
    PROPERTY_NOT_CARRIED = "PropertyNotCarried"
    """The datapath loses a setting of the NIC or of its network, such as a packet filter or a rate limit; the message names it.
    Remove the setting, or accept `PropertyNotCarried/NAME` like IpamNotCarried. `resources`: the VM's domain.resources name
    fewer devices than its NICs would need. Raise that number, or remove it; this cannot be accepted."""
    HOTPLUG_VOLUME_BLOCKS_MACVTAP = "HotplugVolumeBlocksMacvtap"
    """A VM with a hotpluggable volume does not start with macvtap (KubeVirt #17392). Name another datapath."""
    GUEST_LACKS_VF_DRIVER = "GuestLacksVfDriver"
    """The guest has no driver for this NIC's VFs (82576 in Windows). Use a pool of another NIC model."""
    POOR_ON_WINDOWS = "PoorOnWindows"
    """macvtap performs poorly with Windows guests and is not used for them. Name another datapath."""
    BLOCKS_MIGRATION = "BlocksMigration"
    """The policy requires live migration, which this datapath prevents. For VFs set `sriov.acceptDetach` and keep a VF free
    on another node; else lower `liveMigration`."""
    EVICTION_STRATEGY_BLOCKS_DRAIN = "EvictionStrategyBlocksDrain"
    """The VM cannot be migrated on this datapath, and its evictionStrategy LiveMigrate would block the draining of its node.
    Use LiveMigrateIfPossible or None."""
    PLUGIN_NOT_REGISTERED = "PluginNotRegistered"
    """KubeVirt has no network binding plugin `macvtap`. Register it in the KubeVirt resource, in
    spec.configuration.network.binding."""
    FEATURE_GATE_OFF = "FeatureGateOff"
    """A feature gate of KubeVirt is off; the message names it. Add it to developerConfiguration.featureGates."""
    HOST_DEVICE_NOT_PERMITTED = "HostDeviceNotPermitted"
    """The pool's resource is not in KubeVirt's permittedHostDevices, so the VM's pod could not be made. Add it."""
    HOST_DEVICE_PROVIDER_CONFLICT = "HostDeviceProviderConflict"
    """permittedHostDevices lists the pool's resource without `externalResourceProvider: true`, so KubeVirt would serve it
    too. Add that field to the entry."""
    NET_RESOURCE_INJECTOR_MISSING = "NetResourceInjectorMissing"
    """KubeVirt's gate ExternalNetResourceInjection is on and network-resources-injector is not installed, so the VM's pod would
    get no device. Install it, or disable the gate."""
    INSTANCETYPE_OWNS_FIELD = "InstancetypeOwnsField"
    """The VM's instancetype lists host devices, so the VM may not. Use another instancetype."""
    MEMORY_OVERCOMMIT = "MemoryOvercommit"
    """A device on vfio-pci needs all of the guest's memory, and memory is overcommitted; the message says where. Give the VM
    its memory in full, or name another datapath."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The namespace's quota has no room for the GiB of memory that a device on vfio-pci costs the pod, or for the device.
    Raise the quota."""
    NO_VHOST_NET = "NoVhostNet"
    """No node has the module vhost_net, so KubeVirt would leave the VM Pending. Load it on the nodes."""
    ADMIT_CANNOT_CHANGE_NETWORK = "AdmitCannotChangeNetwork"
    """With `action: Admit` only model and queues can be changed, since KubeVirt copies networks back from the VM. Use Patch."""
    POOL_NOT_READY = "PoolNotReady"
    """The pool does not exist, or none of its functions is ready. See `kubectl get snp`."""
    NO_FREE_VF = "NoFreeVf"
    """No node that the VM may use has as many free VFs as it needs. See `kubectl vmnic capacity`."""
    NO_MIGRATION_RESERVE = "NoMigrationReserve"
    """The last VFs of the pool are kept free for migrations. Add VFs to the pool, or lower `reserveForMigration`."""
    INPUT_UNREADABLE = "InputUnreadable"
    """An object that decides about the NIC cannot be read or is not given: a policy, a network, a quota, a DataSource or the
    KubeVirt resource; the message names it. The NIC stays as it is. Correct or give that object."""
    FAILOVER_PAIR = "FailoverPair"
    """The NIC is half of a pair that a `<teaming>` element of the domain makes, and the guest takes both halves for one NIC.
    It stays as it is. Remove the element to have the NIC decided."""
    ADDRESS_TWICE = "AddressTwice"
    """Two domains name the same VF or NIC of the host, so only one of them can run; the message names both. Their NICs stay as
    they are. Give one of them another device."""
    CANNOT_BE_WRITTEN = "CannotBeWritten"
    """The domain's XML must name the VF or NIC by its PCI address, and no given node has a free one that is known. Add
    `kubectl get nicst -o yaml` to the files, or free a device."""
    OWNED_BY_GIT = "OwnedByGit"
    """Another manager applies the VM's NIC list and would put a patch back. Change the VM where that manager takes it from (the
    message and `kubectl vmnic plan` say how), or set `enforcement.gitOwned: Override`."""
    QUEUE_CAP_NEEDS_HOOK = "QueueCapNeedsHook"
    """The VM has more vCPUs than `multiqueue.maxQueues`, and KubeVirt gives a queue to each. Raise maxQueues, or leave it."""
    GUEST_MEMORY_TOO_SMALL = "GuestMemoryTooSmall"
    """Several queues would take more than half of the guest's memory (100 MiB for each queue of each NIC). Give the VM more."""
    BINDING_MISSING = "BindingMissing"
    """An interface of the VM has no binding, and KubeVirt refuses each change of such a VM from 1.9 on; the message names the
    interface. Write its binding into the VM, such as `masquerade: {}`. A version that is not known counts as 1.9."""
    EXCLUDED = "Excluded"
    """The VM has the annotation vmnic.dev/exclude: "true". Remove it to have the VM decided."""
    RECORD_UNREADABLE = "RecordUnreadable"
    """The VM's annotation vmnic.dev/assigned cannot be read, or cannot keep what the VM has now, so a change could not be taken
    back; the message names the field. Remove the annotation, or what the message names."""
    PATCH_REFUSED = "PatchRefused"
    """The API server, KubeVirt or another webhook refuses the change of the VM; the message is theirs. vmnic tries again once a
    minute. Remove what they name. `FIELD differs`: another mutating webhook changes that field with each patch; have it leave
    updates by vmnic's controller alone."""
    MAC_UNKNOWN = "MacUnknown"
    """The VM runs and its MAC address, which a change must keep, cannot be read yet. Wait for the guest agent, or
    write `macAddress` into the VM."""
    EXISTING_VM = "ExistingVm"
    """The VM has run before and `existingVMs: Leave` protects it. Choose WhenStopped, Immediately or
    Rolling to have it changed."""
    WAITS_FOR_STOP = "WaitsForStop"
    """The VM runs and is changed once it is stopped. Stop it, or choose Immediately or Rolling."""
    WAITS_FOR_WINDOW = "WaitsForWindow"
    """With `existingVMs: Rolling` the VM waits for its turn: for the window, for its place among `maxUnavailable`, or for a VM
    that did not come back; the message says for which. Nothing is to be done but in the last case: have that VM run again."""
