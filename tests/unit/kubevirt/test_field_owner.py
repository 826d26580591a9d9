"""The applier of an exported VM, which has no managed fields."""

import json

import msgspec
import pytest

from tests.builders.vm import nic, policy, vm
from tests.unit.cli.test_plan import plan_of
from vmnic.kubevirt.vm import decode_machine

APPLIED, ARGO = "kubectl.kubernetes.io/last-applied-configuration", "argocd.argoproj.io/tracking-id"
FLUX, RECORD = "kustomize.toolkit.fluxcd.io/name", "vmnic.dev/assigned"
KUBECTL = "kubectl-client-side-apply"
E1000E = (nic(model="e1000e"),)


def exported(*notes, flux=False, applied=None, fields=None, nics=E1000E, **spec):
    """Return a VM as `kubectl get -o yaml` prints it."""
    machine = vm("web", *nics, **spec)
    if not nics:
        machine["spec"]["template"]["spec"]["domain"]["devices"] = {}
    written = json.dumps(machine if applied is None else applied) if applied != "" else "no JSON"
    values = {APPLIED: written, ARGO: "apps:kubevirt.io/VirtualMachine:tenants/web", RECORD: "{}"}
    meta = machine["metadata"]
    meta |= {"annotations": {name: values[name] for name in notes}, "labels": {FLUX: "apps"} if flux else {}}
    meta |= {"uid": "u", "resourceVersion": "7"} | ({} if fields is None else {"managedFields": fields})
    return machine


def applying(*nics):
    return vm("web", *nics)


OTHER = applying(nic(model="rtl8139"))
EDITED = [{"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:interfaces": {}}}}]
CASES = [
    ("kubectl apply", exported(APPLIED), KUBECTL),
    ("and later edited", exported(APPLIED, applied=OTHER), KUBECTL),
    ("a list that was not applied", exported(APPLIED, applied=applying()), KUBECTL),
    ("not readable", exported(APPLIED, applied=""), KUBECTL),
    ("no managed fields left", exported(APPLIED, fields=[]), KUBECTL),
    ("changed by vmnic", exported(APPLIED, RECORD, applied=OTHER), ""),
    ("changed by vmnic, not readable", exported(APPLIED, RECORD, applied=""), ""),
    ("applied again after vmnic", exported(APPLIED, RECORD), KUBECTL),
    ("Argo CD", exported(ARGO), "argocd-controller"),
    ("Argo CD without server-side apply", exported(ARGO, APPLIED), "argocd-controller"),
    ("Argo CD, then vmnic", exported(ARGO, RECORD), ""),
    ("Flux", exported(flux=True), "kustomize-controller"),
    ("Flux, then vmnic", exported(RECORD, flux=True), ""),
    ("no mark", exported(), ""),
    ("vmnic alone", exported(RECORD), ""),
    ("no list", exported(APPLIED, ARGO, flux=True, nics=()), ""),
    ("managed fields count first", exported(ARGO, flux=True, fields=EDITED), ""),
]


@pytest.mark.parametrize(("machine", "applier"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_marks_of_appliers_stand_in_for_managed_fields(machine, applier):
    assert decode_machine(msgspec.json.encode(machine)).applier == applier


@pytest.mark.parametrize(
    ("machine", "manager"),
    [(exported(APPLIED), KUBECTL), (exported(ARGO), "argocd-controller"), (exported(flux=True), "kustomize-controller")],
    ids=["kubectl", "Argo CD", "Flux"],
)
def test_an_exported_vm_gets_the_same_plan_as_a_live_one(machine, manager):
    live = json.loads(json.dumps(machine))
    owned = {"f:spec": {"f:template": {"f:spec": {"f:domain": {"f:devices": {"f:interfaces": {}}}}}}}
    operation = "Update" if manager == KUBECTL else "Apply"
    live["metadata"]["managedFields"] = [{"manager": manager, "operation": operation, "fieldsV1": owned}]
    wanted = policy(datapaths=["vhost"], existing="Immediately")
    plans = [plan_of(wanted, one)[1]["vms"] for one in (machine, live)]
    assert plans[0] == plans[1]
    found = plans[0][0]["nics"][0]
    assert (found["reason"], found["message"].count(manager)) == ("OwnedByGit", 1)
