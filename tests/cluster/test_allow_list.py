"""The controller's admission policy, tested with every field of a VM and of a Node and the controller's real token."""

import concurrent.futures
import contextlib
import json
import pathlib
import re

import pytest

from tests.builders.vm import nic, vm
from tests.cluster.test_authority import bound_to_cluster_admin
from tests.harness.api import Api, ApiFailure, path_of, wait_for
from tests.harness.cluster import NAMESPACE
from tests.harness.webhook import TestWebhook

POLICY = "ValidatingAdmissionPolicy 'vmnic-controller'"
NODE = path_of("Node", "", "n1")
MERGE = "application/merge-patch+json"
DEVICES = "spec.template.spec.domain.devices"
FREE = (
    "spec.template.spec.networks", f"{DEVICES}.interfaces", f"{DEVICES}.hostDevices", f"{DEVICES}.networkInterfaceMultiqueue",
    f"{DEVICES}.autoattachPodInterface",
)  # fmt: skip
WORDS = {
    "accessModes": "ReadWriteOnce", "dnsPolicy": "Default", "effect": "NoExecute", "finalizers": "example.com/stay", "imagePullPolicy": "Always",
    "inferFromVolumeFailurePolicy": "Ignore", "nodeAffinityPolicy": "Honor",
    "nodeTaintsPolicy": "Honor", "operator": "Exists", "podCIDR": "192.0.2.0/24", "podCIDRs": "192.0.2.0/24", "path": "/compromised", "scheme": "HTTP", "volumeMode": "Block",
    "whenUnsatisfiable": "DoNotSchedule",
}  # fmt: skip
"""Values that KubeVirt's mutator requires beyond the schema."""
KUBEVIRT_REFUSES = {"spec.instancetype.inferFromVolume", "spec.preference.inferFromVolume"}
"""Refused before the policy is evaluated, because KubeVirt's mutator reads the volume."""
MACHINE = {"spec.template.spec.domain.machine", "spec.template.spec.domain.machine.type"}
ARCHITECTURE = {"spec.template.spec.architecture"}
FILLED_IN = ("architecture", "domain/machine", "domain/resources")
LEFT_OUT = {"nodeSelector": {}, "tolerations": [], "hostname": ""}
STORAGE = {"resources": {"requests": {"storage": "1Gi"}}}
KUBEVIRT_HOOKS = [
    ("MutatingWebhookConfiguration", "virt-api-mutator"),
    ("ValidatingWebhookConfiguration", "virt-api-validator"),
]


def controller(plane):
    """The API as a compromised controller reaches it, once the policy is in effect."""
    mounted = plane.plane.service_account(NAMESPACE, "vmnic-controller")["VMNIC_SERVICE_ACCOUNT_DIR"]
    api = Api(plane.plane.server, plane.plane.pki / "ca.crt", pathlib.Path(mounted, "token").read_text())
    probe = [(("metadata", "labels"), {"metadata": {"labels": {"probe": "yes"}}})]
    wait_for("the policy is in force", lambda: attempts(api, NODE, probe)["policy"])
    return api


class Schema:
    """An OpenAPI schema, with a valid value for each of its fields."""

    def __init__(self, root, documents=None):
        self.root = root
        self._documents = documents or {}

    def resolve(self, schema):
        """Resolve a reference."""
        while "$ref" in schema or "allOf" in schema:
            schema = self._documents[(schema.get("$ref") or schema["allOf"][0]["$ref"]).rsplit("/", 1)[1]]
        return schema

    def fields(self, schema=None, present=None, path=(), wrap=lambda value: value):
        """Yield the path of each field below a schema, and a patch that sets it.

        Required fields are added where they are absent.
        """
        schema = self.resolve(self.root if schema is None else schema)
        properties = schema.get("properties", {})
        needed = {} if present else {name: self.sample(properties[name], name) for name in _needed(schema)}
        for name, field in properties.items():

            def put(value, name=name):
                return wrap(needed | {name: value})

            yield (*path, name), put(self.sample(field, name))
            yield from self.fields(field, (present or {}).get(name), (*path, name), put)
        for key, nest in (("items", lambda value: [value]), ("additionalProperties", lambda value: {"key": value})):
            if isinstance(schema.get(key), dict):
                yield from self.fields(schema[key], None, path, lambda value, nest=nest: wrap(nest(value)))

    def sample(self, schema, name=""):
        """Return a value that the schema accepts and that no test has written."""
        schema = self.resolve(schema)
        if schema.get("x-kubernetes-int-or-string") or "oneOf" in schema or "anyOf" in schema:
            return "77"
        match schema.get("type", "object"):
            case "array":
                return [self.sample(schema["items"], name)]
            case "object":
                return self._object(schema)
            case "string":
                return self._text(schema, name)
            case "boolean":
                return True
        return 77

    def _text(self, schema, name):
        if "enum" in schema:
            return schema["enum"][-1]
        if "pattern" in schema:
            return "1"
        return "2001-01-01T00:00:00Z" if schema.get("format") == "date-time" else WORDS.get(name, "compromised")

    def _object(self, schema):
        fields, extra = schema.get("properties", {}), schema.get("additionalProperties")
        if isinstance(extra, dict):
            return {"key": self.sample(extra)}
        if not fields:
            return {"name": "compromised"}
        names = _needed(schema) or [min(fields, key=lambda name: (self.resolve(fields[name]).get("type") == "object", name))]
        return {name: self.sample(fields[name], name) for name in names}


def _needed(schema):
    """Return the fields that must accompany others.

    KubeVirt's mutator writes an absent apiGroup as null, and requires a name.
    """
    fields = schema.get("properties", {})
    asked = ({"apiGroup"} & fields.keys()) | ({"name"} if "inferFromVolume" in fields else set())
    return sorted({*schema.get("required", ()), *asked})


def attempts(api, path, fields):
    """Try all patches, and group the fields by answer.

    A field is refused by the policy, refused before it, allowed, or ignored.
    """
    before = api.request("GET", path)

    def attempt(field):
        name, body = ".".join(field[0]), field[1]
        try:
            after = api.request("PATCH", f"{path}?dryRun=All", body, MERGE)
        except ApiFailure as error:
            return name, "policy" if POLICY in str(error) else "other", str(error)
        return name, "ignored" if written(after) == written(before) else "allowed", after

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, fields))
    found = {"policy": {}, "other": {}, "allowed": {}, "ignored": {}}
    for name, who, answer in answers:
        found[who][name] = answer
    print(f"{path}: {len(answers)} fields tried:", {who: len(names) for who, names in found.items()})
    return found


def written(thing):
    """Return the part of an object that clients write, without its status and what Kubernetes counts."""
    meta = {
        key: value for key, value in thing["metadata"].items() if key not in ("managedFields", "generation", "resourceVersion")
    }
    return meta, thing["spec"]


def named_by(message):
    """Return the field that a refusal names."""
    return re.search(r": ([^ ]+) differs$", message)[1]


def machine_schema(plane):
    """Return KubeVirt's schema of a VirtualMachine."""
    crd = plane.api.get("CustomResourceDefinition", "virtualmachines.kubevirt.io")
    return next(one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["name"] == "v1")


@pytest.fixture
def stored(plane, namespace):
    """A VM as KubeVirt's mutator stores it."""
    plane.api.create(vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    return wait_for("KubeVirt has seen it", lambda: finalized(plane, namespace))


def finalized(plane, namespace):
    """The VM after virt-controller has written its fields into it."""
    machine = plane.api.get("VirtualMachine", "v", namespace)
    return machine if machine["metadata"].get("finalizers") else None


@contextlib.contextmanager
def no_kubevirt_webhooks(plane):
    """Remove KubeVirt's webhooks for a while."""
    hooks = [(kind, plane.api.get(kind, name)) for kind, name in KUBEVIRT_HOOKS]
    for kind, hook in hooks:
        plane.api.delete(kind, hook["metadata"]["name"])
    try:
        yield
    finally:
        for _, hook in hooks:
            hook["metadata"] = {key: hook["metadata"][key] for key in ("name", "labels", "annotations")}
            plane.api.create(hook)


@pytest.fixture
def unmutated(plane, namespace, stored):
    """The same VM, stored without the defaults of KubeVirt's mutator, and with the fields that it removes."""
    changes = [{"op": "remove", "path": "/spec/template/spec/" + name} for name in FILLED_IN]
    volume = {"metadata": {"name": "data", "creationTimestamp": None}, "spec": {"source": {"blank": {}}, "storage": STORAGE}}
    changes.append({"op": "add", "path": "/spec/dataVolumeTemplates", "value": [volume]})
    changes.append(
        {"op": "add", "path": "/spec/template/spec/volumes", "value": [{"name": "d", "dataVolume": {"name": "data"}}]}
    )
    changes.append({"op": "add", "path": "/spec/template/spec/domain/devices/disks", "value": [{"name": "d", "disk": {}}]})
    changes += [{"op": "add", "path": f"/spec/template/spec/{name}", "value": value} for name, value in LEFT_OUT.items()]
    with no_kubevirt_webhooks(plane):
        wait_for("no webhook fills it in", lambda: not filled_in(plane.api.patch("VirtualMachine", "v", changes, namespace)))
    label = [{"op": "add", "path": "/metadata/labels", "value": {"probe": "yes"}}]
    wait_for("the webhooks answer", lambda: filled_in(plane.api.patch("VirtualMachine", "v", label, namespace, "?dryRun=All")))
    machine = plane.api.get("VirtualMachine", "v", namespace)
    assert not filled_in(machine)
    return machine


def filled_in(machine):
    return "architecture" in machine["spec"]["template"]["spec"]


def walk(plane, machine):
    fields = Schema(machine_schema(plane)).fields(present=machine)
    path = path_of("VirtualMachine", machine["metadata"]["namespace"], "v")
    return attempts(controller(plane), path, [one for one in fields if one[0][0] == "spec"])


@pytest.mark.parametrize(
    ("kept", "by_kubevirt", "allowed"),
    [("stored", KUBEVIRT_REFUSES, set()), ("unmutated", KUBEVIRT_REFUSES | MACHINE, ARCHITECTURE)],
    ids=["stored", "stored without defaults, which may be set"],
)
def test_only_nic_fields_of_a_vm_spec_may_change(plane, request, kept, by_kubevirt, allowed):
    found = walk(plane, request.getfixturevalue(kept))
    others, done = (
        {name: text for name, text in found[who].items() if not name.startswith(FREE)} for who in ("other", "allowed")
    )
    assert others.keys() == by_kubevirt, others
    assert done.keys() == allowed
    assert not [name for name in found["policy"] if name.startswith(FREE)]
    for name, message in found["policy"].items():
        assert name.startswith(named_by(message)) or named_by(message).startswith(name)


@pytest.mark.parametrize("kept", ["stored", "unmutated"])
def test_nics_and_the_annotation_of_a_vm_may_change(plane, namespace, request, kept):
    request.getfixturevalue(kept)
    model = [{"op": "add", "path": "/spec/template/spec/domain/devices/interfaces/0/model", "value": "virtio"}]
    record = [{"op": "add", "path": "/metadata/annotations/vmnic.dev~1assigned", "value": "{}"}]
    done = controller(plane).patch("VirtualMachine", "v", model + record, namespace)
    assert done["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"] == "virtio"
    assert filled_in(done)


def test_large_vm_is_within_the_cost_limit(plane, namespace):
    names = [f"disk-{number}" for number in range(60)]
    templates = [{"metadata": {"name": name}, "spec": {"source": {"blank": {}}, "storage": STORAGE}} for name in names]
    machine = vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted", dataVolumeTemplates=templates)
    spec = machine["spec"]["template"]["spec"]
    spec["volumes"] = [{"name": name, "dataVolume": {"name": name}} for name in names]
    spec["volumes"].append({"name": "init", "cloudInitNoCloud": {"userData": "x" * 2000}})
    spec["domain"]["devices"]["disks"] = [{"name": name, "disk": {"bus": "virtio"}} for name in [*names, "init"]]
    machine["metadata"]["annotations"] = {f"example.com/note-{number}": "x" * 1000 for number in range(100)}
    plane.api.create(machine)
    model = [{"op": "add", "path": "/spec/template/spec/domain/devices/interfaces/0/model", "value": "virtio"}]
    assert controller(plane).patch("VirtualMachine", "v", model, namespace, "?dryRun=All")


def of_node(plane, *parts):
    """Return the fields of parts of a Node, from the API server's schema."""
    described = plane.api.request("GET", "/openapi/v3/api/v1")["components"]["schemas"]
    node = Schema(described["io.k8s.api.core.v1.Node"], described)
    return [one for one in node.fields(present=plane.api.get("Node", "n1")) if one[0][0] in parts]


def test_only_unschedulable_of_a_node_spec_may_change(plane):
    found = attempts(controller(plane), NODE, of_node(plane, "spec"))
    assert found["other"].keys() == {"spec", "spec.externalID"}, found["other"]
    assert found["allowed"].keys() == {"spec.unschedulable"}
    assert all(name.startswith("spec.configSource") for name in found["ignored"])


BY_POLICY = {"annotations", "finalizers", "generateName", "labels", "ownerReferences", "selfLink"}
BY_KUBERNETES = {
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields", "name", "namespace",
    "resourceVersion", "uid",
}  # fmt: skip
"""Refused or ignored for every client."""


@pytest.mark.parametrize(("kind", "name"), [("VirtualMachine", "v"), ("Node", "n1")])
def test_only_one_annotation_of_the_metadata_may_change(plane, namespace, stored, kind, name):
    fields = [one for one in of_node(plane, "metadata") if len(one[0]) > 1]
    found = attempts(controller(plane), path_of(kind, namespace, name), fields)
    assert not found["allowed"]
    assert {name.split(".")[1] for name in found["policy"]} == BY_POLICY
    assert {name.split(".")[1] for name in found["other"] | found["ignored"]} == BY_KUBERNETES
    note = {"metadata": {"annotations": {"vmnic.dev/assigned" if kind == "VirtualMachine" else "vmnic.dev/cordoned": "x"}}}
    assert attempts(controller(plane), path_of(kind, namespace, name), [(("note",), note)])["allowed"]


def test_status_is_not_written_through_the_object(plane, namespace, stored):
    of_machine = [one for one in Schema(machine_schema(plane)).fields(present=stored) if one[0][0] == "status"]
    for path, fields in ((path_of("VirtualMachine", namespace, "v"), of_machine), (NODE, of_node(plane, "status"))):
        found = attempts(controller(plane), path, fields)
        assert not found["allowed"]
        assert not any("compromised" in json.dumps(answer["status"]) for answer in found["ignored"].values())


@pytest.fixture
def careless(plane):
    """Binds the controller's account to cluster-admin, as a careless administrator might."""
    with bound_to_cluster_admin(plane.api, "vmnic-controller", NAMESPACE):
        yield


@pytest.mark.parametrize(("kind", "name"), [("VirtualMachine", "v"), ("Node", "n1")])
def test_careless_rbac_lets_controller_create_or_delete_nothing(plane, namespace, stored, careless, kind, name):
    api, path = controller(plane), path_of(kind, namespace, name)
    copy = plane.api.get(kind, name, namespace) | {"metadata": {"name": "copy"}}
    for verb, where, body in (("POST", path.rpartition("/")[0], copy), ("DELETE", path, None), ("PATCH", f"{path}/status", {})):
        with pytest.raises(ApiFailure, match=POLICY):
            api.request(verb, f"{where}?dryRun=All", body, MERGE if verb == "PATCH" else "application/json")


def first_nic(cluster, namespace):
    """Return the first NIC in the VM's VmNicState."""
    state = cluster.api.get("VmNicState", "v", namespace) or {}
    return next(iter(state.get("status", {}).get("nics", [])), {})


def test_field_changed_by_another_webhook_is_named_in_vm_state(cluster, policy, namespace):
    def meddle(machine):
        """Change another field of the VM with each update."""
        return [{"op": "add", "path": "/spec/template/spec/hostname", "value": f"seen-{webhook.seen}"}]

    webhook = TestWebhook(cluster, "meddler", meddle, operation="UPDATE")
    try:
        cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
        policy(f"p-{namespace}", namespace, existing="Immediately")
        wait_for("it is refused", lambda: first_nic(cluster, namespace).get("reason") == "PatchRefused", 90)
        assert "spec.template.spec.hostname differs" in first_nic(cluster, namespace)["message"]
    finally:
        webhook.close()
