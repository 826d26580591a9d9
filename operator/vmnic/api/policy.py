"""VmNicPolicy, which selects VMs and the datapaths of their NICs."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from ..checked import forms
from ..checked.printable import cut
from .common import ApiModel, Condition, Count, Generation, IntOrPercent, LabelSelector, Metadata, Name, Problem
from .keywords import cel, map_list

__all__ = [
    "Emulated",
    "Enforcement",
    "Multiqueue",
    "Passthrough",
    "PolicyProblem",
    "PolicySpec",
    "PolicyStatus",
    "Selector",
    "Sriov",
    "VmCounts",
    "VmNicPolicy",
    "Window",
]

_NOTHING_SELECTED = 'selector must not be empty: give at least one field; networks: ["*"] selects every NIC'
_AUTO_ALONE = "datapaths is either [auto] or a list of datapaths without auto"
_ONCE = "datapaths names each datapath once"
_NEEDS_POOL = "datapaths names passthrough: name the pool of whole NICs in passthrough.pool"
_ONE_SOURCE = "sriov names either a pool or the resourceName of another operator, not both"


class Selector(ApiModel):
    """Which NICs of which VMs the policy selects. Every given field must match."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "has(self.namespaceSelector) || has(self.vmSelector) || size(self.guestOS) > 0 || size(self.networks) > 0",
                    _NOTHING_SELECTED,
                )
            ]
        }
    )

    namespace_selector: LabelSelector | None = None
    """Labels of the VM's namespace."""
    vm_selector: LabelSelector | None = None
    """Labels of the VirtualMachine."""
    guest_os: Annotated[list[Literal["linux", "windows"]], Field(max_length=2, alias="guestOS")] = []
    """Guest operating systems. Empty selects any, even an unknown one."""
    networks: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=253)]], Field(max_length=64)] = []
    """Globs on a NIC's network: `pod`, the name of a NetworkAttachmentDefinition, or its namespace/name. Empty selects
    every NIC.
    """
    platforms: Annotated[list[Literal["KubeVirt", "Libvirt"]], Field(min_length=1, max_length=2)] = ["KubeVirt", "Libvirt"]
    """Where the VM runs: as a KubeVirt VirtualMachine, or as a domain of a node's own libvirt."""

    @model_validator(mode="after")
    def _not_empty(self) -> Selector:
        """Repeat the CEL rule, which is not evaluated offline."""
        if not (self.namespace_selector or self.vm_selector or self.guest_os or self.networks):
            raise ValueError(_NOTHING_SELECTED)
        return self


class Emulated(ApiModel):
    """Settings of the datapath `emulated`."""

    model: Literal["e1000e", "e1000", "rtl8139", "igb"] = "e1000e"
    """Model that a change to `emulated` writes. A NIC that already has any emulated model is left as it is."""


class Sriov(ApiModel):
    """Source of the VFs for the datapath `sriov`."""

    model_config = ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [cel("!(has(self.pool) && has(self.resourceName))", _ONE_SOURCE)]}
    )

    pool: Name | None = None
    """SriovNetworkPool whose VFs are used; absent for any pool with a network in the NIC's segment."""
    resource_name: Annotated[str, StringConstraints(min_length=3, max_length=253)] | None = None
    """Device resource of another operator, for example intel.com/x, in place of a pool."""
    spread: Literal["Any", "PerPf"] = "Any"
    """PerPf: the NICs of one VM get VFs of different physical functions, for a bond in the guest. This needs a pool with
    `resourcePerPF: true`. Any: they may share one.
    """
    accept_detach: bool = False
    """During a live migration the guest is without its VF until it has arrived. True: with `liveMigration: Required` this
    counts as migratable while a VF is free on another node.
    """

    @model_validator(mode="after")
    def _one_source(self) -> Sriov:
        if self.pool and self.resource_name:
            raise ValueError(_ONE_SOURCE)
        return self


class Passthrough(ApiModel):
    """Source of the whole NICs for the datapath `passthrough`."""

    pool: Name
    """SriovNetworkPool with `function: Physical`. A whole NIC has no Kubernetes network, so naming the pool asserts that its
    NICs are on the VM's layer-2 network.
    """


class Multiqueue(ApiModel):
    """Settings for the queues of virtio NICs.

    KubeVirt has one switch for the whole VM, which gives every NIC as many queues as the VM has vCPUs.
    """

    mode: Literal["Auto", "Always", "Never"] = "Auto"
    """Auto: several queues if the network pressure is High and the VM has at least two vCPUs, otherwise unchanged.
    Always: several queues if the VM has at least two vCPUs. Never: one queue.
    """
    # 256 is KubeVirt's limit, which comes from the kernel's for a tap device (MAX_TAP_QUEUES).
    max_queues: Annotated[int, Field(ge=1, le=256)] = 8
    """Most queues. A VM with more vCPUs is left as it is, because each queue costs memory in guest and host."""


class TenantOverrides(ApiModel):
    """Effects that annotations on a VirtualMachine may have."""

    exclude: Literal["Allowed", "Ignored"] = "Allowed"
    """`vmnic.dev/exclude: "true"`: vmnic decides nothing for the VM."""
    network_pressure: Literal["Allowed", "Ignored"] = "Ignored"
    """`vmnic.dev/network-pressure: High` or `Low` replaces the policy's value."""
    restart: Literal["Allowed", "Ignored"] = "Allowed"
    """`vmnic.dev/restart: Never`: `Rolling` does not restart the VM, which is changed once it is stopped."""


class Window(ApiModel):
    """Time window in which VMs may be restarted."""

    # The shortest expression, `* * * * *`, has nine characters.
    schedule: Annotated[str, StringConstraints(min_length=9, max_length=128)]
    """Time at which the window opens, as a cron expression of five fields, for example "0 2 * * *"."""
    duration: Annotated[str, StringConstraints(max_length=6, pattern=r"^[1-9][0-9]{0,4}[mh]$")] = "1h"
    """Length of the window in minutes or hours, for example "90m" or "4h"."""
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    """Name of the time zone of `schedule`, for example Europe/Berlin."""


class Enforcement(ApiModel):
    """Action on NICs that differ from what is wanted."""

    # The default changes nothing, so a new policy first shows what it would do.
    action: Literal["Audit", "Patch", "Admit"] = "Audit"
    """Audit: only report. Patch: change the VirtualMachine, and new VMs at admission, so that their first boot is already
    right. Admit: leave the VirtualMachine as it is and change the instance that KubeVirt creates at every start; model and
    queues only.
    """
    existing_vms: Annotated[Literal["Leave", "WhenStopped", "Immediately", "Rolling"], Field(alias="existingVMs")] = "Leave"
    """A change gives VMs that have run before another network adapter, which a Windows guest notices. Leave: never
    change them. WhenStopped: change them while they are stopped. Immediately: change the spec now, in effect after the next
    restart. Rolling: change and restart them, a few at a time. With Admit, VMs older than the policy count as having run
    before.
    """
    max_unavailable: IntOrPercent = 1
    """Rolling: most VMs of the policy that restart at a time, as a number or a percentage (rounded up)."""
    max_unavailable_per_namespace: IntOrPercent | None = None
    """Rolling: most VMs that restart at a time in one namespace; absent if only maxUnavailable applies."""
    window: Window | None = None
    """Rolling: time window for restarts; absent for always."""
    git_owned: Literal["Yield", "Override"] = "Yield"
    """If another manager applies a VM's NIC lists (GitOps, `kubectl apply`), it would revert a patch. Yield: never patch such a
    VM, and report what to write in Git. Override: patch it anyway. A VM that is being created is patched in either case.
    """


_ACCEPTABLE = f"accept names {forms.ACCEPTABLE_WORDS}"


def _check_acceptable(value: str) -> str:
    """Repeat the CEL rule, which is not evaluated offline."""
    if not re.fullmatch(forms.anchored(forms.ACCEPTABLE), value):
        raise ValueError(f"{cut(value, _SHOWN_BYTES)!r} cannot be accepted: {_ACCEPTABLE}")
    return value


# A rule and no pattern, because the API server quotes a pattern and not a message.
_Acceptable = Annotated[
    str,
    StringConstraints(max_length=128),
    AfterValidator(_check_acceptable),
    Field(json_schema_extra={"x-kubernetes-validations": [cel(f"self.matches('{forms.ACCEPTABLE}')", _ACCEPTABLE)]}),
]
_SHOWN_BYTES = 64


class PolicySpec(ApiModel):
    """Which VMs get which datapath."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [cel("!('passthrough' in self.datapaths) || has(self.passthrough)", _NEEDS_POOL)]
        }
    )

    priority: Annotated[int, Field(ge=0, le=10_000)] = 100
    """For each NIC the policy with the highest priority wins. Among equal priorities the first by name wins, and a different
    decision is reported.
    """
    selector: Selector
    """Which NICs of which VMs."""
    datapaths: Annotated[
        list[Literal["auto", "emulated", "virtio", "vhost", "macvtap", "sriov", "passthrough"]],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={
                "x-kubernetes-validations": [
                    cel("!('auto' in self) || size(self) == 1", _AUTO_ALONE),
                    # No list of type `set`, which also refuses duplicates: server-side apply merges sets, and the order counts.
                    cel("self.all(d, self.exists_one(e, e == d))", _ONCE),
                ]
            },
        ),
    ] = ["auto"]
    """`auto` alone, or a list in order of preference. auto under low pressure: emulated for Windows, vhost for Linux.
    Under high pressure: for Windows sriov, then passthrough if a pool is named; for Linux sriov, then macvtap if
    liveMigration is NotNeeded, then vhost with several queues. A NIC of an unknown guest is left as it is. On KubeVirt
    `virtio` means `vhost`.
    """
    network_pressure: Literal["Low", "High"] = "Low"
    """Network load that `auto` optimizes for."""
    live_migration: Literal["Required", "Preferred", "NotNeeded"] = "Preferred"
    """Required: excludes passthrough, macvtap and, unless `sriov.acceptDetach` is set, sriov. Preferred: excludes nothing and
    reports what is lost. NotNeeded: `auto` may also use macvtap.
    """
    sriov: Sriov | None = None
    """Source of VFs."""
    passthrough: Passthrough | None = None
    """Source of whole NICs."""
    emulated: Emulated = Emulated()
    """Settings of the datapath `emulated`."""
    multiqueue: Multiqueue = Multiqueue()
    """Settings for the queues of virtio NICs. If several policies select NICs of a VM, those of the highest priority apply."""
    accept: Annotated[list[_Acceptable], Field(max_length=32)] = []
    """Reasons that do not exclude a datapath for the policy's NICs: IpamNotCarried, MtuDiffers, GuestMtuChanges, or
    PropertyNotCarried/NAME with the name of a field, an XML element or a CNI key.
    """
    tenant_overrides: TenantOverrides = TenantOverrides()
    """Effects that annotations on a VirtualMachine may have."""
    enforcement: Enforcement = Enforcement()
    """Action on NICs that differ from what is wanted."""

    @model_validator(mode="after")
    def _consistent(self) -> PolicySpec:
        """Repeat the CEL rules, which are not evaluated offline."""
        if "auto" in self.datapaths and len(self.datapaths) > 1:
            raise ValueError(_AUTO_ALONE)
        if len(set(self.datapaths)) < len(self.datapaths):
            raise ValueError(_ONCE)
        if "passthrough" in self.datapaths and self.passthrough is None:
            raise ValueError(_NEEDS_POOL)
        return self


class VmCounts(ApiModel):
    """VMs of the policy by state."""

    matched: Count = 0
    """VMs with at least one NIC that the policy decides."""
    compliant: Count = 0
    """VMs whose NICs are as wanted."""
    to_change: Count = 0
    """VMs with a NIC that will change."""
    pending_restart: Count = 0
    """VMs whose spec is as wanted and whose running instance is not."""
    blocked: Count = 0
    """VMs with a NIC that cannot be decided or changed."""
    conflicting: Count = 0
    """VMs with a NIC for which another policy of the same priority decides differently."""
    at_risk: Count = 0
    """VMs with a NIC that keeps its datapath although it fails, or gets no device, at the next start."""


class PolicyProblem(Problem):
    """A problem with one NIC that may need action by a person."""

    vm: Annotated[str, StringConstraints(max_length=320)] = ""
    """Namespace and name of the VM."""
    nic: Annotated[str, StringConstraints(max_length=253)] = ""
    """Name of the interface."""


class PolicyStatus(ApiModel):
    """Observed state of the policy's VMs."""

    observed_generation: Generation = 0
    """The `metadata.generation` that this status refers to."""
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, json_schema_extra=map_list("type")),
    ] = []
    """Ready, Compliant, Conflict, Reconciling, Stalled."""
    problems: Annotated[list[PolicyProblem], Field(max_length=10)] = []
    """The first ten NICs that may need action by a person."""
    vms: VmCounts = VmCounts()
    """VMs by state."""
    nics_by_datapath: Annotated[dict[str, Count], Field(max_length=8)] = {}
    """NICs that the policy decides, by their present datapath."""


class VmNicPolicy(ApiModel):
    """A rule that selects the datapath for the NICs of virtual machines."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    PLURAL: ClassVar[str] = "vmnicpolicies"
    SHORT: ClassVar[list[str]] = ["vnp"]
    COLUMNS: ClassVar[list[dict[str, Any]]] = [
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Compliant", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Compliant")].status'},
        {"name": "Action", "type": "string", "jsonPath": ".spec.enforcement.action"},
        {"name": "Datapaths", "type": "string", "jsonPath": ".spec.datapaths"},
        {"name": "VMs", "type": "integer", "jsonPath": ".status.vms.matched"},
        {"name": "To change", "type": "integer", "jsonPath": ".status.vms.toChange"},
        {"name": "Blocked", "type": "integer", "jsonPath": ".status.vms.blocked"},
        {"name": "Priority", "type": "integer", "jsonPath": ".spec.priority", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]

    metadata: Metadata
    spec: PolicySpec
    status: PolicyStatus = PolicyStatus()
