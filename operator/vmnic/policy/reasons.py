"""Every word that a decision about a NIC may carry; the reference table is generated from the docstrings."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """Why a candidate fell out, or why a NIC is blocked or waits. For one candidate the first that holds counts."""

    GUEST_OS_UNKNOWN = "GuestOsUnknown"
    """Nothing tells what guest this is. Set the annotation vm.kubevirt.io/os on the template, use a preference, or install
    the guest agent."""
    VIRTIO_NOT_CHOSEN_FOR_WINDOWS = "VirtioNotChosenForWindows"
    """`auto` does not choose virtio for Windows, where brief disconnects have been seen. Name vhost in `datapaths`."""
    NOT_PREFERRED = "NotPreferred"
    """A candidate before it was chosen."""
    NO_EQUIVALENT_NETWORK = "NoEquivalentNetwork"
    """The NIC's network is not offered over this datapath, and a change must not move the VM to another one."""
    NO_VHOST_NET = "NoVhostNet"
    """No node has the module vhost_net, so KubeVirt would leave the VM Pending. Load it on the nodes."""
    OWNED_BY_GIT = "OwnedByGit"
    """Another manager applies the VM's NIC list and would put a patch back. Change the VM where that manager takes it from (the
    message and `kubectl vmnic plan` say how), or set `enforcement.gitOwned: Override`."""
    QUEUE_CAP_NEEDS_HOOK = "QueueCapNeedsHook"
    """The VM has more vCPUs than `multiqueue.maxQueues`, and KubeVirt gives a queue to each. Raise maxQueues, or leave it."""
    GUEST_MEMORY_TOO_SMALL = "GuestMemoryTooSmall"
    """Several queues would take more than half of the guest's memory (100 MiB for each queue of each NIC). Give the VM more."""
    EXCLUDED = "Excluded"
    """The VM has the annotation vmnic.dev/exclude: "true". Remove it to have the VM decided."""
    MAC_UNKNOWN = "MacUnknown"
    """The VM runs and its MAC address, which a change must keep, cannot be read yet."""
    EXISTING_VM = "ExistingVm"
    """The VM has run before and `existingVMs: Leave` protects it."""
    WAITS_FOR_STOP = "WaitsForStop"
    """The VM runs; with `existingVMs: WhenStopped` it is changed once it is stopped."""
