"""Admission of a VirtualMachine: a review in, a review with a patch out. Pure, and never a refusal."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..policy.engine import allocate, candidates, decide
from ..policy.facts import ClusterFacts
from ..policy.rules import Rule
from .gather import MachineInput, gather_vm_facts
from .patch import render_patch
from .projection import Machine, decode_machine

__all__ = ["review_machine"]


class _Request(msgspec.Struct):
    uid: str
    object: msgspec.Raw
    namespace: str = ""


class _Review(msgspec.Struct):
    request: _Request


_decoder = msgspec.json.Decoder(_Review)


def review_machine(
    raw: bytes, *, rules: Sequence[Rule], cluster: ClusterFacts, complete: Callable[[Machine, str], MachineInput]
) -> dict[str, Any]:
    """Answer one AdmissionReview for a VirtualMachine that is being created.

    Args:
        raw: The AdmissionReview.
        rules: All policies.
        cluster: Facts of the cluster.
        complete: Adds to a VM of a namespace what belongs to it.

    Raises:
        msgspec.MsgspecError: this is no AdmissionReview.
    """
    request = _decoder.decode(raw).request
    answer: dict[str, Any] = {"uid": request.uid, "allowed": True}
    try:
        machine = decode_machine(request.object)
    except msgspec.MsgspecError as error:
        # KubeVirt judges VMs; vmnic has nothing to add to one that it cannot read.
        answer["warnings"] = [f"vmnic leaves this VirtualMachine as it is, it cannot be read: {error}"[:200]]
        return _review(answer)
    found = candidates(gather_vm_facts(complete(machine, request.namespace)), rules, cluster)
    patch = render_patch(decide(found, allocate([found])))
    if patch:
        answer["patchType"] = "JSONPatch"
        answer["patch"] = base64.b64encode(msgspec.json.encode(patch)).decode()
    return _review(answer)


def _review(answer: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
