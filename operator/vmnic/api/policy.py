"""VmNicPolicy: which virtual machines get which NIC datapath."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from .common import ApiModel, Condition, LabelSelector, Metadata, Problem, cel, map_list

__all__ = [
    "Emulated",
    "Enforcement",
    "Multiqueue",
    "PolicyProblem",
    "PolicySpec",
    "PolicyStatus",
    "Selector",
    "VmCounts",
    "VmNicPolicy",
]


class Selector(ApiModel):
    """Which NICs of which VMs: every given field must match."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "has(self.namespaceSelector) || has(self.vmSelector) || size(self.guestOS) > 0 || size(self.networks) > 0",
                    'selector must not be empty: give at least one field; networks: ["*"] selects every NIC',
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


class Emulated(ApiModel):
    """Settings of the datapath `emulated`."""

    model: Literal["e1000e", "e1000", "rtl8139", "igb"] = "e1000e"
    """The model that a change to `emulated` writes. A NIC that already has any emulated model is left alone."""


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


class Enforcement(ApiModel):
    """What is done about a NIC that is not as wanted."""

    action: Literal["Audit", "Patch"] = "Audit"
    """Audit: only report. Patch: change the VirtualMachine, at admission for new VMs, so that their first boot is
    right."""
    existing_vms: Annotated[Literal["Leave", "WhenStopped", "Immediately"], Field(alias="existingVMs")] = "Leave"
    """VMs that have run before get another network adapter by a change, which a Windows guest notices. Leave: never
    touch them. WhenStopped: change them while they are stopped. Immediately: change the spec now, in force at the next
    restart."""
    git_owned: Literal["Yield", "Override"] = "Yield"
    """VMs whose NIC lists another manager applies (GitOps, `kubectl apply`) would be put back by it. Yield: never patch
    them, say what to write in Git. Override: patch them all the same. A VM that is being created is patched either way."""


class PolicySpec(ApiModel):
    """Which VMs get which datapath."""

    priority: Annotated[int, Field(ge=0, le=10_000)] = 100
    """The highest priority wins for each NIC; equal ones that decide differently follow the first by name and are
    reported."""
    selector: Selector
    """Which NICs of which VMs."""
    datapaths: Annotated[
        list[Literal["auto", "emulated", "virtio", "vhost"]],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={
                "x-kubernetes-validations": [
                    cel(
                        "!('auto' in self) || size(self) == 1",
                        "datapaths is either [auto] or a list of datapaths without auto",
                    ),
                    cel("self.all(d, self.exists_one(e, e == d))", "datapaths names each datapath once"),
                ]
            },
        ),
    ] = ["auto"]
    """`auto` alone, or an order of preference. auto: emulated for Windows, vhost for Linux, an unknown guest is left
    as it
    is. On KubeVirt `virtio` means `vhost`."""
    network_pressure: Literal["Low", "High"] = "Low"
    """What `auto` aims at. High: Linux gets several queues (see multiqueue), Windows is left as it is."""
    emulated: Emulated = Emulated()
    """Settings of the datapath `emulated`."""
    multiqueue: Multiqueue = Multiqueue()
    """Settings of the queues of virtio NICs; of several policies, those of the highest that selects any NIC of the VM."""
    tenant_overrides: TenantOverrides = TenantOverrides()
    """What annotations on a VirtualMachine may do."""
    enforcement: Enforcement = Enforcement()
    """What is done about a NIC that is not as wanted."""


class VmCounts(ApiModel):
    """VMs that the policy decides for, by state."""

    matched: int = 0
    """VMs with at least one NIC that the policy decides."""
    compliant: int = 0
    """VMs whose NICs are as wanted."""
    to_change: int = 0
    """VMs with a NIC that is to change."""
    pending_restart: int = 0
    """VMs whose spec is as wanted and whose running instance is not."""
    blocked: int = 0
    """VMs with a NIC that cannot be decided or changed."""
    conflicting: int = 0
    """VMs with a NIC for which another policy of the same priority decides differently."""


class PolicyProblem(Problem):
    """One NIC that a person may want to look at."""

    vm: Annotated[str, StringConstraints(max_length=320)] = ""
    """Namespace and name of the VM."""
    nic: Annotated[str, StringConstraints(max_length=253)] = ""
    """Name of the interface."""


class PolicyStatus(ApiModel):
    """What the policy found and did."""

    observed_generation: int = 0
    """The `metadata.generation` that this status speaks of."""
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, json_schema_extra=map_list("type")),
    ] = []
    """Ready, Compliant, Conflict."""
    problems: Annotated[list[PolicyProblem], Field(max_length=10)] = []
    """The first ten NICs that a person may want to look at."""
    vms: VmCounts = VmCounts()
    """VMs by state."""
    nics_by_datapath: Annotated[dict[str, int], Field(max_length=8)] = {}
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
