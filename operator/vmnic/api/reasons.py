"""Reasons of conditions and problems of PFs, pools and nodes, each with its cause and what to do.

The docstring below a member becomes a row of `docs/reference/reasons.md`: the first sentence is the cause, the rest the remedy.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["NodeReason", "PfReason", "PoolProblemReason", "PoolReason"]


class PfReason(StrEnum):
    """Why a PF is not, or cannot be, as its pool asks."""

    FOREIGN_OWNER = "ForeignOwner"
    """Another program manages the PF's VFs. Take the PF out of the pool, or away from that program."""
    FIRMWARE_SRIOV_OFF = "FirmwareSriovOff"
    """The NIC offers no VFs, and its model has SR-IOV. Enable it in the firmware of the NIC and of the machine; the message
    names the vendor's tool.
    """
    TOO_MANY_VFS = "TooManyVfs"
    """More VFs are asked for than `sriov_totalvfs` or the NIC data allow. Lower `numVfs`, or set it to "max"."""
    TOO_FEW_VFS = "TooFewVfs"
    """`management: Adopt` uses existing VFs, and there are fewer than asked for. Create them, or lower `numVfs`."""
    TOO_MANY_QUEUES = "TooManyQueues"
    """More queues are asked for than the NIC has left beside its VFs. Lower `queues`."""
    NO_MMIO_SPACE = "NoMmioSpace"
    """The machine's firmware left no address space for the VFs' registers. Add pci=realloc to the kernel command line."""
    HOST_USED = "HostUsed"
    """The host itself uses the PF: an address, a default route or an upper device. Take the PF out of the pool, or
    set `safety.allowHostUsed: true`.
    """
    IOMMU_OFF = "IommuOff"
    """vfio-pci needs an IOMMU. Enable it in the firmware and with `intel_iommu=on` or `amd_iommu=on`, then reboot."""
    IOMMU_GROUP_SHARED = "IommuGroupShared"
    """Devices that the message names share the IOMMU group, so no VM can get one of them alone. Unbind them from their drivers,
    select all of them with one Physical pool, or use a slot with ACS.
    """
    NO_DRIVER = "NoDriver"
    """No driver is bound to the PF, so the kernel cannot create VFs. Bind the NIC's driver."""
    LINK_ELSEWHERE = "LinkElsewhere"
    """The PF's link is in another network namespace, where it cannot be configured, so its VFs are not advertised.
    Move it back to the host's network namespace, or take the PF out of the pool.
    """
    MODULE_MISSING = "ModuleMissing"
    """A kernel module that VMs need cannot be loaded. Load it, or find out why the kernel refuses it."""
    MODULE_OPTIONS_NEEDED = "ModuleOptionsNeeded"
    """The driver creates VFs only by a parameter, when it is loaded. Set `persistence: ModuleOptions`."""
    MODULE_OPTIONS_UNSUPPORTED = "ModuleOptionsUnsupported"
    """The NIC data name no parameter with which the driver creates VFs. Set `persistence: Agent`, or add the parameter to the
    NIC data.
    """
    DRIVER_IN_USE = "DriverInUse"
    """The driver would have to be reloaded while the host or a VM uses one of its functions. Reboot the
    node, which puts the options in force.
    """
    VANISHED = "Vanished"
    """A PF that belongs to a pool is no longer there. Check the hardware, or take the PF out of the pool."""
    CARRIER_LOST = "CarrierLost"
    """The PF's link has lost its carrier, so its VFs have no network and are no longer advertised. Check the cable, the
    transceiver and the switch port.
    """
    UNREADABLE = "Unreadable"
    """Reading the PF failed, or the node's status could not be read or published, so vmnic draws no conclusion. Read
    the message and the kernel's log; the agent reads again by itself.
    """
    WRITE_STILL_IN_FLIGHT = "WriteStillInFlight"
    """A write of an earlier change has not returned from the kernel, and the PF is left alone until it does. Check the
    kernel's log; if the write never returns, reboot the node.
    """
    PCI_BUS_STUCK = "PciBusStuck"
    """A write did not return from the kernel, so no further PCI write starts on this node. Check the kernel's log;
    usually only a reboot of the node helps.
    """
    APPLY_FAILED = "ApplyFailed"
    """The host refused an action, or the value read back differs from the one written. The message names the action and
    the errno: remove the cause, then change the pool or reboot the node to have it tried again.
    """
    RESERVED_MEMORY_REGION = "ReservedMemoryRegion"
    """The machine's firmware reserves memory for the IOMMU group (a `direct` region), or the regions cannot be read, so no VM
    can get its devices. Turn that off in the firmware (RMRR), or take the PF out of the pool.
    """
    ROLLED_BACK = "RolledBack"
    """The change cut the node off, so the agent rolled it back. Change the pool, or approve the plan to try it again."""
    SWITCHDEV_MODE = "SwitchdevMode"
    """The NIC's e-switch is in switchdev mode, in which VF attributes belong to the programs that configure it. Leave `vf` out
    of the pool, or put the NIC into legacy mode.
    """
    LINK_TYPE_DIFFERS = "LinkTypeDiffers"
    """The PF's link is no Ethernet link, for example an InfiniBand one, and VFs of pools are Ethernet adapters. Exclude it from
    the pool's `nicSelector`, or set the port to Ethernet.
    """
    SEVERAL_PORTS = "SeveralPorts"
    """The PF has several ports, so `mtu`, `queues` and `vf` would apply to an unknown one. Leave them out of the pool."""


class PoolProblemReason(StrEnum):
    """Reason of an entry of `status.problems` of a pool, beside those of a PF."""

    CONFLICT = "Conflict"
    """An older pool has the function, the range of VFs or the resource name. Narrow one of the selectors, or let both agree on
    `numVfs`, `mtu` and `queues`."""
    TOO_MANY_RESOURCES = "TooManyResources"
    """`resourcePerPF` gives more than 64 resources. Policies do not use the others; select fewer link names for each pool."""
    WAITING_FOR_VMS = "WaitingForVMs"
    """The plan would take VFs that are in use; the message names the holders. Stop or move them, or let
    `rollout.disruption: Drain` move the VMs."""
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    """With `rollout.disruption: Manual` a disruptive plan waits for approval. Read it with `kubectl vmnic nodes`, then
    `kubectl vmnic approve NODE`."""
    DRAINING = "Draining"
    """VMs are leaving the node; the message names those that cannot, and holders that vmnic does not evict because they are no
    VMs of the pool. Nothing; `rollout.drainTimeout` bounds it. Stop what is not evicted."""
    NO_VFS_FOR_DRAIN = "NoVfsForDrain"
    """VMs with VFs cannot be moved, because no other node that has finished its own change has as many free VFs. Free some, add
    nodes, or set `reserveForMigration` so that some stay free."""
    NODE_NOT_READY = "NodeNotReady"
    """The node is not ready, so no change starts on it. Bring the node back."""
    NODE_LOST = "NodeLost"
    """The node has not reported for ten minutes, and its change failed or is unfinished; it counts as failed. Bring the node
    back, or delete its Node: the rollout goes on then."""
    NAD_KIND_ABSENT = "NadKindAbsent"
    """The pool has `networks`, and the cluster has no NetworkAttachmentDefinitions. Install Multus, which brings the kind;
    vmnic checks every 30 s. Or remove `networks`."""
    CHANGE_TIMED_OUT = "ChangeTimedOut"
    """The node's change has not succeeded within `rollout.drainTimeout` and `safety.rollbackTimeout`; it counts as failed. Read
    the log of the node's agent. A node that `nodeSelector` no longer matches does not hold up the others."""
    LEDGER_FULL = "LedgerFull"
    """The ConfigMap `vmnic-ledger` has no room for more nodes that change at the same time; the others wait. Nothing; or lower
    `rollout.maxConcurrent`. Nodes that have failed keep their entry: repair them."""
    UNKNOWN_MODEL = "UnknownModel"
    """`nicSelector.models` has a name that the NIC data do not have. Correct it, or add the model to the NIC data."""
    MIXED_GUEST_SUPPORT = "MixedGuestSupport"
    """Windows has a driver for the VFs of some nodes only; the message names the others. Make a pool for each kind of VF with
    `nicSelector.models`."""
    NAD_EXISTS = "NadExists"
    """A NetworkAttachmentDefinition of that name exists, and its annotation `vmnic.dev/pool-uid` is not the pool's uid. Rename
    the network in the pool, or delete that object."""
    NAD_IN_USE = "NadInUse"
    """VMs refer to a NetworkAttachmentDefinition that the pool no longer asks for; the message names them. Give those VMs
    another network; vmnic then deletes the object. The annotation `vmnic.dev/abandon` releases it at once."""
    NAD_REFUSED = "NadRefused"
    """The API server refused the NetworkAttachmentDefinition. The message has its words."""


class PoolReason(StrEnum):
    """Reason of a pool's conditions, beside those of its problems."""

    ALL_NODES_READY = "AllNodesReady"
    """Every node is as the pool asks. Nothing."""
    NO_NODES_MATCHED = "NoNodesMatched"
    """No node has a NIC that the pool selects. Nothing, if that is intended; else compare the selectors with
    `kubectl vmnic nodes`."""
    ROLLING_OUT = "RollingOut"
    """Nodes are changing or wait for their turn. Nothing."""
    SETTLED = "Settled"
    """No node is changing. Nothing."""
    PAUSED = "Paused"
    """`rollout.paused` is true, so no further node starts. Set it to false."""
    NODES_FAILED = "NodesFailed"
    """Nodes have failed, as many as `rollout.maxFailures` allows. Read `status.problems`, repair the nodes, then change the
    pool or approve the plan."""
    REMOVING = "Removing"
    """The pool is being deleted, and nodes are still being released. Nothing; a node that does not answer is not waited for."""
    UNSUPPORTED_SPEC = "UnsupportedSpec"
    """This version of vmnic cannot read the spec. Correct the field that the message names, or upgrade vmnic."""
    NO_CONFLICT = "NoConflict"
    """No older pool has a function that this pool selects. Nothing."""
    NOT_STALLED = "NotStalled"
    """Nothing waits for a person. Nothing."""


class NodeReason(StrEnum):
    """Reason of a NodeNicState's conditions, beside those of its PFs."""

    AS_DESIRED = "AsDesired"
    """Every function is as the pools ask. Nothing."""
    PLAN_PENDING = "PlanPending"
    """The agent has a plan that the controller has not granted yet. Nothing; the pool's `status.problems` says what it waits
    for."""
    BLOCKED = "Blocked"
    """A plan waits for VMs that hold VFs. Stop or move the VMs that the message names."""
    DEGRADED = "Degraded"
    """A function cannot be prepared, or a step failed. Read the message: it names function, step and remedy."""
    HEALTHY = "Healthy"
    """No function has a problem. Nothing."""
    MODULE_MISSING = "ModuleMissing"
    """A kernel module is not loaded, and the agent may not load it. Load it, also at boot."""
    NOT_SYNCED = "NotSynced"
    """The controller has not decided about this node yet. Nothing; if it lasts, read the controller's log."""
    STATUS_REFUSED = "StatusRefused"
    """The API server refused the agent's whole status, so a reduced one is shown. Upgrade the CRDs to the agent's version, or
    report the message."""
    WAITING_FOR_VMS = "WaitingForVMs"
    """A plan would take VFs that are in use. Stop or move the VMs that the message names."""
    NOT_BLOCKED = "NotBlocked"
    """No plan waits for VMs. Nothing."""
    ROLLED_BACK = "RolledBack"
    """A change cut the node off and was undone. Change the pool, or approve the plan to try it again."""
    NOT_ROLLED_BACK = "NotRolledBack"
    """No change was undone. Nothing."""
    CHANGING = "Changing"
    """VFs are hidden from pods while they change, for seconds. Nothing."""
    NOT_FENCED = "NotFenced"
    """All devices are offered to pods. Nothing."""
