"""Admission review of a VmNicPolicy.

It warns about objects that do not exist yet, and refuses a policy that can never work.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from pydantic import ValidationError

from ...api.policy import VmNicPolicy
from ...policy.window import WindowError, is_open
from ..caches.cluster_cache import ClusterCache

__all__ = ["review_policy"]


class _Request(msgspec.Struct):
    uid: str
    object: msgspec.Raw


class _Review(msgspec.Struct):
    request: _Request


_decoder = msgspec.json.Decoder(_Review)


async def review_policy(raw: bytes, world: ClusterCache | None) -> dict[str, Any]:
    """Answer the review of a policy that is created or updated.

    Args:
        raw: The AdmissionReview.
        world: The caches. None if any client can connect, because it must not learn which objects exist.

    Raises:
        msgspec.MsgspecError: not an AdmissionReview.
    """
    request = _decoder.decode(raw).request
    response: dict[str, Any] = {"uid": request.uid, "allowed": True}
    try:
        policy = VmNicPolicy.model_validate_json(bytes(request.object), extra="ignore")
        # Only for its error: a policy with a window that is closed now is valid.
        is_open(policy.spec.enforcement.window, datetime.now(UTC))
    except ValidationError:
        pass  # The CRD's schema reports what is wrong.
    except WindowError as error:
        response |= {"allowed": False, "status": {"code": 422, "reason": "Invalid", "message": f"spec.{error}"}}
    else:
        warnings = _warnings(policy)
        if world is not None:
            warnings = [*await _existence_warnings(policy, world), *warnings]
        response |= {"warnings": warnings} if warnings else {}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _warnings(policy: VmNicPolicy) -> list[str]:
    spec = policy.spec
    if spec.passthrough is not None and "passthrough" not in spec.datapaths and spec.datapaths != ["auto"]:
        return ["spec.passthrough has no effect, as datapaths does not name passthrough"]
    return []


async def _existence_warnings(policy: VmNicPolicy, world: ClusterCache) -> list[str]:
    """Return warnings about pools and VMs that do not exist yet."""
    found = []
    spec = policy.spec
    pools = world.inputs.cluster_facts.pools
    named = (
        ("sriov.pool", spec.sriov.pool if spec.sriov is not None else None, False),
        ("passthrough.pool", spec.passthrough.pool if spec.passthrough is not None else None, True),
    )
    for field, name, physical in named:
        if not name:
            continue
        pool = pools.get(name)
        if pool is None:
            found.append(f"spec.{field}: there is no SriovNetworkPool {name} yet; `kubectl get snp` lists them")
        elif pool.physical is not physical:
            kind = "Physical" if physical else "Virtual"
            found.append(f"spec.{field}: pool {name} is not a pool with function: {kind}; name another pool")
    if world.machines_synced and not await world.inputs.selects_any(policy):
        found.append("spec.selector matches no existing VM")
    return found
