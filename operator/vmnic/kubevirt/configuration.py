"""Reader of the KubeVirt resource.

It provides version, feature gates, network binding plugins and permitted host devices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..policy.facts import INJECTION_GATE, ClusterFacts, KubeVirtFacts, PoolFacts

__all__ = ["KubeVirt", "cluster_facts", "decode_kubevirt", "is_injector", "kubevirt_facts"]

_BETA_IS_ON = (1, 9)
"""From this version on, beta gates are on unless they are disabled."""
_BETA_GIVES = frozenset({"PasstBinding"})
_BETA_TAKES = frozenset({INJECTION_GATE})
"""Beta gates that take something away from VMs."""
_NO_OVERCOMMIT = 100
"""In percent. The guest gets as much memory as its pod has."""


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _Developer(_Part, frozen=True):
    feature_gates: list[str] = []
    disabled_feature_gates: list[str] = []
    memory_overcommit: int = _NO_OVERCOMMIT


class _Network(_Part, frozen=True):
    binding: dict[str, Any] = {}
    default_network_interface: str = ""


class _PciDevice(_Part, frozen=True):
    resource_name: str = ""
    external_resource_provider: bool = False


class _Permitted(_Part, frozen=True):
    pci_host_devices: list[_PciDevice] = []


class _Configuration(_Part, frozen=True):
    developer_configuration: _Developer = _Developer()
    network: _Network = _Network()
    permitted_host_devices: _Permitted = _Permitted()
    eviction_strategy: str | None = None
    cpu_request: str | int | float | None = None


class _Spec(_Part, frozen=True):
    configuration: _Configuration = _Configuration()


class _Status(_Part, frozen=True):
    observed_kube_virt_version: str = ""
    default_architecture: str = ""
    target_kube_virt_version: str = ""


class _Meta(_Part, frozen=True):
    name: str = ""
    namespace: str = ""


class KubeVirt(_Part, frozen=True):
    """The KubeVirt resource."""

    metadata: _Meta
    spec: _Spec = _Spec()
    status: _Status = _Status()


decode_kubevirt = msgspec.json.Decoder(KubeVirt).decode


def kubevirt_facts(resource: KubeVirt | None, *, injector: bool | None = None, unreadable: str = "") -> KubeVirtFacts:
    """Read what KubeVirt allows.

    Without the resource, or without a version in its status, the gates of 1.8 apply.

    Args:
        resource: The KubeVirt resource.
        injector: Whether network-resources-injector is installed, as far as known.
        unreadable: Why the resource cannot be read; empty if it can be.
    """
    if resource is None:
        return KubeVirtFacts(injector=injector, unreadable=unreadable)
    configuration = resource.spec.configuration
    developer = configuration.developer_configuration
    observed, target = map(_version, (resource.status.observed_kube_virt_version, resource.status.target_kube_virt_version))
    # virt-operator writes the observed version last, when the new virt-controller already makes the pods.
    highest = max((one for one in (observed, target) if one is not None), default=None)
    gates = set(developer.feature_gates)
    gates |= _BETA_GIVES if observed is not None and observed >= _BETA_IS_ON else set()
    gates |= _BETA_TAKES if highest is not None and highest >= _BETA_IS_ON else set()
    return KubeVirtFacts(
        is_given=True,
        version=observed,
        highest_version=highest,
        default_architecture=resource.status.default_architecture,
        gates=frozenset(gates - set(developer.disabled_feature_gates)),
        plugins=frozenset(configuration.network.binding),
        default_binding="masquerade" if configuration.network.default_network_interface == "masquerade" else "bridge",
        permitted={
            device.resource_name: device.external_resource_provider
            for device in configuration.permitted_host_devices.pci_host_devices
        },
        memory_overcommit=developer.memory_overcommit > _NO_OVERCOMMIT,
        cpu_request=configuration.cpu_request,
        eviction_strategy=configuration.eviction_strategy or "",
        injector=injector,
        unreadable=unreadable,
    )


def cluster_facts(
    pools: Mapping[str, PoolFacts],
    resource: KubeVirt | None,
    *,
    vhost_net: bool | None,
    injector: bool | None,
    unreadable: str = "",
    pod_network_mtu: int | None = None,
) -> ClusterFacts:
    """Collect the facts that apply to all VMs.

    Args:
        pools: All pools by name.
        resource: The KubeVirt resource.
        vhost_net: Whether any node has vhost_net, as far as known.
        injector: Whether network-resources-injector is installed, as far as known.
        unreadable: Why the KubeVirt resource cannot be read; empty if it can be.
        pod_network_mtu: MTU of the pod network in bytes; None if unknown.
    """
    return ClusterFacts(
        vhost_net=vhost_net,
        pools=pools,
        resources={name: pool for pool in pools.values() for name in pool.resource_names},
        kubevirt=kubevirt_facts(resource, injector=injector, unreadable=unreadable),
        pod_network_mtu=pod_network_mtu,
    )


def is_injector(names: Iterable[str]) -> bool:
    """Return whether a webhook configuration with these names is that of network-resources-injector."""
    return any("network-resources-injector" in name for name in names)


def _version(text: str) -> tuple[int, int] | None:
    found = re.match(r"v?([0-9]{1,3})\.([0-9]{1,3})(?![0-9])", text)
    return (int(found[1]), int(found[2])) if found else None
