"""VmNicPolicy: which virtual machines get which NIC datapath."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from .common import ApiModel, Condition, Count, Generation, IntOrPercent, LabelSelector, Metadata, Name, Problem, cel, map_list

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
    """Which NICs of which VMs: every given field must match."""

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
    """Guest operating systems; empty selects any, an unknown one too."""
    networks: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=253)]], Field(max_length=64)] = []
    """Globs on a NIC's network: `pod`, the name of a NetworkAttachmentDefinition, or its namespace/name. Empty selects
    every NIC."""
    platforms: Annotated[list[Literal["KubeVirt", "Libvirt"]], Field(min_length=1, max_length=2)] = ["KubeVirt", "Libvirt"]
    """Where the VM runs: as a VirtualMachine of KubeVirt, or as a domain of a node's own libvirt."""

    @model_validator(mode="after")
    def _not_empty(self) -> Selector:
        """Offline nobody evaluates the CEL rule, so it is said again."""
        if not (self.namespace_selector or self.vm_selector or self.guest_os or self.networks):
            raise ValueError(_NOTHING_SELECTED)
        return self


class Emulated(ApiModel):
    """Settings of the datapath `emulated`."""

    model: Literal["e1000e", "e1000", "rtl8139", "igb"] = "e1000e"
    """The model that a change to `emulated` writes. A NIC that already has any emulated model is left alone."""


class Sriov(ApiModel):
    """Where VFs come from for the datapath `sriov`."""

    model_config = ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [cel("!(has(self.pool) && has(self.resourceName))", _ONE_SOURCE)]}
    )

    pool: Name | None = None
    """The SriovNetworkPool whose VFs are used; without it, any pool whose network is on the NIC's segment."""
    resource_name: Annotated[str, StringConstraints(min_length=3, max_length=253)] | None = None
    """The device resource of another operator, for example intel.com/x, in place of a pool."""
    accept_detach: bool = False
    """A live migration takes the VF from the guest until it has arrived. True: with `liveMigration: Required` that counts
    as migratable, as long as a VF is free on another node."""

    @model_validator(mode="after")
    def _one_source(self) -> Sriov:
        if self.pool and self.resource_name:
            raise ValueError(_ONE_SOURCE)
        return self


class Passthrough(ApiModel):
    """Where whole NICs come from for the datapath `passthrough`."""

    pool: Name
    """A SriovNetworkPool with `function: Physical`. Naming it vouches that its NICs are on the VM's layer-2 network: a whole
    NIC has no network of Kubernetes."""


class Multiqueue(ApiModel):
    """Settings of the queues of virtio NICs. In KubeVirt they are one switch for the whole VM: as many queues as vCPUs."""

    mode: Literal["Auto", "Always", "Never"] = "Auto"
    """Auto: several queues where the network pressure is High and the VM has at least two vCPUs, otherwise as it is.
    Always: wherever the VM has at least two vCPUs. Never: one queue."""
    max_queues: Annotated[int, Field(ge=1, le=256)] = 8
    """A VM with more vCPUs is left as it is, since each queue costs memory in guest and host."""


class TenantOverrides(ApiModel):
    """What annotations on a VirtualMachine may do."""

    exclude: Literal["Allowed", "Ignored"] = "Allowed"
    """`vmnic.dev/exclude: "true"`: nothing is decided for the VM."""
    network_pressure: Literal["Allowed", "Ignored"] = "Ignored"
    """`vmnic.dev/network-pressure: High` or `Low` instead of the policy's."""
    restart: Literal["Allowed", "Ignored"] = "Allowed"
    """`vmnic.dev/restart: Never`: `Rolling` does not restart the VM; it is changed once it is stopped."""


class Window(ApiModel):
    """When VMs may be restarted."""

    schedule: Annotated[str, StringConstraints(min_length=9, max_length=128)]
    """When the window opens, as a cron expression of five fields, for example "0 2 * * *"."""
    duration: Annotated[str, StringConstraints(max_length=6, pattern=r"^[1-9][0-9]{0,4}[mh]$")] = "1h"
    """How long it stays open, in minutes or hours, for example "90m" or "4h"."""
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    """Name of the time zone of `schedule`, for example Europe/Berlin."""


class Enforcement(ApiModel):
    """What is done about a NIC that is not as wanted."""

    action: Literal["Audit", "Patch", "Admit"] = "Audit"
    """Audit: only report. Patch: change the VirtualMachine, at admission for new VMs, so that their first boot is
    right. Admit: leave the VirtualMachine as it is and change the instance that KubeVirt makes of it at every start; model
    and queues only."""
    existing_vms: Annotated[Literal["Leave", "WhenStopped", "Immediately", "Rolling"], Field(alias="existingVMs")] = "Leave"
    """VMs that have run before get another network adapter by a change, which a Windows guest notices. Leave: never
    touch them. WhenStopped: change them while they are stopped. Immediately: change the spec now, in force at the next
    restart. Rolling: change and restart them, a few at a time. With Admit, VMs that are older than the policy count as
    having run before."""
    max_unavailable: IntOrPercent = 1
    """Rolling: how many of the policy's VMs restart at a time, a number or a share (rounded up)."""
    max_unavailable_per_namespace: IntOrPercent | None = None
    """Rolling: how many of them in one namespace; absent: only maxUnavailable counts."""
    window: Window | None = None
    """Rolling: when VMs may be restarted; absent: always."""
    git_owned: Literal["Yield", "Override"] = "Yield"
    """VMs whose NIC lists another manager applies (GitOps, `kubectl apply`) would be put back by it. Yield: never patch
    them, say what to write in Git. Override: patch them all the same. A VM that is being created is patched either way."""


class PolicySpec(ApiModel):
    """Which VMs get which datapath."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [cel("!('passthrough' in self.datapaths) || has(self.passthrough)", _NEEDS_POOL)]
        }
    )

    priority: Annotated[int, Field(ge=0, le=10_000)] = 100
    """The highest priority wins for each NIC; equal ones that decide differently follow the first by name and are
    reported."""
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
                    cel("self.all(d, self.exists_one(e, e == d))", _ONCE),
                ]
            },
        ),
    ] = ["auto"]
    """`auto` alone, or an order of preference. auto under low pressure: emulated for Windows, vhost for Linux. Under high
    pressure: sriov, for Windows then passthrough where a pool is named, for Linux then macvtap where liveMigration is
    NotNeeded, then vhost with several queues. An unknown guest is left as it is. On KubeVirt `virtio` means `vhost`."""
    network_pressure: Literal["Low", "High"] = "Low"
    """What `auto` aims at."""
    live_migration: Literal["Required", "Preferred", "NotNeeded"] = "Preferred"
    """Required: passthrough and macvtap are out, and sriov unless `sriov.acceptDetach`. Preferred: nothing is out, what is
    lost is said. NotNeeded: `auto` may also use macvtap."""
    sriov: Sriov | None = None
    """Where VFs come from."""
    passthrough: Passthrough | None = None
    """Where whole NICs come from."""
    emulated: Emulated = Emulated()
    """Settings of the datapath `emulated`."""
    multiqueue: Multiqueue = Multiqueue()
    """Settings of the queues of virtio NICs; of several policies, those of the highest that selects any NIC of the VM."""
    tenant_overrides: TenantOverrides = TenantOverrides()
    """What annotations on a VirtualMachine may do."""
    enforcement: Enforcement = Enforcement()
    """What is done about a NIC that is not as wanted."""

    @model_validator(mode="after")
    def _consistent(self) -> PolicySpec:
        """Offline nobody evaluates the CEL rules, so they are said again."""
        if "auto" in self.datapaths and len(self.datapaths) > 1:
            raise ValueError(_AUTO_ALONE)
        if len(set(self.datapaths)) < len(self.datapaths):
            raise ValueError(_ONCE)
        if "passthrough" in self.datapaths and self.passthrough is None:
            raise ValueError(_NEEDS_POOL)
        return self


class VmCounts(ApiModel):
    """VMs that the policy decides for, by state."""

    matched: Count = 0
    """VMs with at least one NIC that the policy decides."""
    compliant: Count = 0
    """VMs whose NICs are as wanted."""
    to_change: Count = 0
    """VMs with a NIC that is to change."""
    pending_restart: Count = 0
    """VMs whose spec is as wanted and whose running instance is not."""
    blocked: Count = 0
    """VMs with a NIC that cannot be decided or changed."""
    conflicting: Count = 0
    """VMs with a NIC for which another policy of the same priority decides differently."""


class PolicyProblem(Problem):
    """One NIC that a person may want to look at."""

    vm: Annotated[str, StringConstraints(max_length=320)] = ""
    """Namespace and name of the VM."""
    nic: Annotated[str, StringConstraints(max_length=253)] = ""
    """Name of the interface."""


class PolicyStatus(ApiModel):
    """What the policy found and did."""

    observed_generation: Generation = 0
    """The `metadata.generation` that this status speaks of."""
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, json_schema_extra=map_list("type")),
    ] = []
    """Ready, Compliant, Conflict, Reconciling, Stalled."""
    problems: Annotated[list[PolicyProblem], Field(max_length=10)] = []
    """The first ten NICs that a person may want to look at."""
    vms: VmCounts = VmCounts()
    """VMs by state."""
    nics_by_datapath: Annotated[dict[str, Count], Field(max_length=8)] = {}
    """NICs that the policy decides, by the datapath that they have now."""


class VmNicPolicy(ApiModel):
    """A rule that gives the NICs of selected virtual machines a datapath."""

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
