"""Every admission review of junk gets an answer that allows the object, within the time budget."""

import asyncio
import base64
import copy

import msgspec
import pytest
from hypothesis import given

from tests.builders.machines import NAMESPACE
from vmnic.controller.admission.reviews import Reviews
from vmnic.controller.admission.server import check_size
from vmnic.kube.time_budget import Subject

from .bounds import within_bounds
from .junk import dump, mutations
from .scene import OBJECTS, FuzzScene
from .settings import inputs


def review(kind, body, operation="CREATE", **more):
    request = {"uid": "u", "operation": operation, "namespace": NAMESPACE, "name": "odd", "object": body, **more}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def reverted():
    """Return the VM as a GitOps tool applies it again, without vmnic's assignments."""
    body = copy.deepcopy(OBJECTS["virtualmachines"])
    spec = body["spec"]["template"]["spec"]
    spec["domain"]["devices"]["interfaces"][1] = {"name": "br", "bridge": {}}
    spec["networks"][1] = {"name": "br", "multus": {"networkName": "br"}}
    return body


VM = OBJECTS["virtualmachines"]
REVIEWS = {
    "virtualmachine": [
        review("VirtualMachine", VM),
        review("VirtualMachine", reverted(), "UPDATE", oldObject=VM, options={"fieldManager": "argocd"}),
    ],
    "virtualmachineinstance": [review("VirtualMachineInstance", OBJECTS["virtualmachineinstances"])],
    "policy": [review("VmNicPolicy", OBJECTS["vmnicpolicies"])],
}


@pytest.mark.parametrize("webhook", REVIEWS)
def test_an_admission_review_of_junk_is_answered(webhook):
    scene = FuzzScene()
    reviews = Reviews(scene.world, scene.world.set_aside, is_authenticated=True)

    def answer(raw):
        try:
            check_size(raw)
            return asyncio.run(reviews.answer(webhook, "u", Subject("VirtualMachine", "x"), raw)).review["response"]
        except (ValueError, RecursionError):
            return {"allowed": True}  # The input is not an AdmissionReview.

    @inputs(share=len(REVIEWS))
    @given(mutations(REVIEWS[webhook]))
    def reviewed(document):
        response = within_bounds(lambda: dump(document), answer)
        assert response["allowed"] or webhook == "policy"
        msgspec.json.decode(base64.b64decode(response.get("patch") or "W10="))

    reviewed()
