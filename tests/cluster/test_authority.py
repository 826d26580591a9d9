"""A compromised agent, whose real, node-bound token tries every verb on every kind of the API server."""

import contextlib
import itertools
import pathlib

import pytest

from tests.builders.vm import nad
from tests.harness.api import Api, ApiFailure, path_of
from tests.harness.cluster import AGENT_NAMESPACE, NAMESPACE

RIGHTS = {("nodenicstates", verb) for verb in ("get", "list", "watch")} | {("nodenicstates/status", "patch")}
REVIEWS = {(kind, "create") for kind in ("selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews")}
"""Reviews of one's own permissions, which any account may create."""
METHODS = {
    "get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE",
    "deletecollection": "DELETE",
}  # fmt: skip
OWN, FOREIGN = "n1", "n2"


def agent(cluster, node=OWN, account="vmnic-agent"):
    """Return the API as a compromised agent reaches it."""
    mounted = cluster.plane.service_account(AGENT_NAMESPACE, account, node)["VMNIC_SERVICE_ACCOUNT_DIR"]
    return Api(cluster.plane.server, cluster.plane.pki / "ca.crt", pathlib.Path(mounted, "token").read_text())


def status_of(api, verb, path, body=None, **headers):
    """Return the HTTP status of one attempt.

    A patch is a merge patch.
    """
    query = {"watch": "?watch=1&timeoutSeconds=1", "get": "", "list": ""}.get(verb, "?dryRun=All")
    content = "application/merge-patch+json" if verb == "patch" else "application/json"
    try:
        api.request(METHODS[verb], path + query, None if verb in ("get", "list", "watch") else body or {}, content, **headers)
    except ApiFailure as error:
        return error.status
    return 200


def resources(api):
    """Return everything that discovery lists, as pairs of root path and resource."""
    roots = ["/api/v1"]
    for group in api.request("GET", "/apis")["groups"]:
        roots += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    for root in roots:
        for resource in api.request("GET", root)["resources"] or ():
            yield root, resource


def paths(root, resource, verb):
    """Return the paths on which a verb can be tried, with own and foreign names and namespaces."""
    kind, _, sub = resource["name"].partition("/")
    places = [f"/namespaces/{name}" for name in (AGENT_NAMESPACE, NAMESPACE)] if resource["namespaced"] else [""]
    on_collection = verb in ("list", "watch", "deletecollection") or (verb == "create" and not sub)
    for place, name in itertools.product(places, ("",) if on_collection else (OWN, FOREIGN)):
        yield "/".join(part for part in (f"{root}{place}", kind, name, sub) if part)


def allowed(cluster, account):
    """Return the verbs and kinds that an account may use in any namespace."""
    taken, done = agent(cluster, account=account), set()
    for root, resource in resources(cluster.api):
        for verb in resource["verbs"] or ():
            if any(status_of(taken, verb, path) != 403 for path in paths(root, resource, verb)):
                done.add((resource["name"], verb))
    return done


def test_compromised_agent_reads_states_and_writes_status_only(cluster):
    cluster.api.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": AGENT_NAMESPACE}}
    )
    # Kubernetes' and KubeVirt's own roles permit some requests to every account.
    anybody = allowed(cluster, "nobody")
    assert {right for right in anybody if right[1] not in ("get", "list", "watch")} == REVIEWS
    assert allowed(cluster, "vmnic-agent") - anybody == RIGHTS


def test_agent_can_write_only_its_own_status(cluster):
    taken = agent(cluster)
    body = {"status": {"bootID": "taken"}}
    assert status_of(taken, "patch", path_of("NodeNicState", "", OWN, "status"), body) == 200
    assert status_of(taken, "patch", path_of("NodeNicState", "", FOREIGN, "status"), body) == 403


def test_token_without_a_node_writes_nothing(cluster):
    answer = cluster.api.request("POST", path_of("ServiceAccount", AGENT_NAMESPACE, "vmnic-agent", "token"), {"spec": {}})
    unbound = Api(cluster.plane.server, cluster.plane.pki / "ca.crt", answer["status"]["token"])
    with pytest.raises(ApiFailure, match="bound to no node"):
        unbound.merge("NodeNicState", OWN, {"status": {}}, sub="status")


@pytest.mark.parametrize(
    "field",
    [
        {"finalizers": ["example.com/stay"]},
        {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": FOREIGN, "uid": "0"}]},
        {"labels": {"taken": "yes"}},
        {"annotations": {"vmnic.dev/approved": "sha256:0"}},
    ],
    ids=lambda field: next(iter(field)),
)
def test_status_update_changes_nothing_else_of_the_object(cluster, field):
    before = cluster.api.get("NodeNicState", OWN)
    agent(cluster).merge("NodeNicState", OWN, {"metadata": field, "spec": {"synced": False}}, sub="status")
    after = cluster.api.get("NodeNicState", OWN)
    assert after["spec"] == before["spec"]
    assert {key: after["metadata"].get(key) for key in field} == {key: before["metadata"].get(key) for key in field}


@pytest.mark.parametrize(
    "headers",
    [
        {"Impersonate-User": f"system:serviceaccount:{NAMESPACE}:vmnic-controller"},
        {"Impersonate-User": f"system:serviceaccount:{AGENT_NAMESPACE}:vmnic-agent"},
        {"Impersonate-User": f"system:node:{FOREIGN}", "Impersonate-Group": "system:nodes"},
        {"Impersonate-User": "admin", "Impersonate-Group": "system:masters"},
        {
            "Impersonate-User": f"system:serviceaccount:{AGENT_NAMESPACE}:vmnic-agent",
            "Impersonate-Extra-authentication.kubernetes.io%2Fnode-name": FOREIGN,
        },
    ],
    ids=["controller", "itself", "kubelet", "admin", "another node"],
)
def test_compromised_agent_cannot_impersonate(cluster, headers):
    assert status_of(agent(cluster), "get", path_of("NodeNicState", "", FOREIGN), **headers) == 403


@contextlib.contextmanager
def bound_to_cluster_admin(api, account, namespace):
    """Bind an account to cluster-admin while the block runs, as a careless administrator might."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "careless"}}
    api.create(body | {"roleRef": role, "subjects": [subject]})
    yield
    api.delete("ClusterRoleBinding", "careless")


@pytest.fixture
def careless(cluster):
    """Binds the agents to cluster-admin."""
    with bound_to_cluster_admin(cluster.api, "vmnic-agent", AGENT_NAMESPACE):
        yield


@pytest.mark.parametrize(
    ("kind", "namespace", "name"),
    [
        ("NodeNicState", "", OWN), ("NodeNicState", "", FOREIGN), ("Node", "", OWN), ("Node", "", FOREIGN),
        ("ConfigMap", NAMESPACE, "vmnic-ledger"), ("Secret", NAMESPACE, "vmnic-webhook-ca"),
        ("Lease", NAMESPACE, "vmnic-controller"), ("ClusterRole", "", "vmnic-agent"),
        ("ServiceAccount", NAMESPACE, "vmnic-controller"), ("MutatingWebhookConfiguration", "", "vmnic"),
        ("Pod", AGENT_NAMESPACE, f"vmnic-agent-{FOREIGN}"), ("KubeVirt", "kubevirt", "kubevirt"),
    ],
)  # fmt: skip
def test_careless_rbac_gives_an_agent_no_write(cluster, careless, kind, namespace, name):
    taken = agent(cluster)
    body = cluster.api.get(kind, name, namespace)
    label = {"metadata": {"labels": {"taken": "yes"}}}
    path = path_of(kind, namespace, name)
    copy = body | {"metadata": {"name": "copy", **({"namespace": namespace} if namespace else {})}}
    for verb, where, what in [
        ("patch", path, label),
        ("update", path, body),
        ("delete", path, None),
        ("create", path_of(kind, namespace), copy),
    ]:
        assert status_of(taken, verb, where, what) == 403, verb


def controller(cluster):
    """The API as a compromised controller reaches it."""
    mounted = cluster.plane.service_account(NAMESPACE, "vmnic-controller")["VMNIC_SERVICE_ACCOUNT_DIR"]
    return Api(cluster.plane.server, cluster.plane.pki / "ca.crt", pathlib.Path(mounted, "token").read_text())


@pytest.mark.parametrize(
    "change",
    [{"spec": {"numVfs": 1}}, {"metadata": {"labels": {"x": "y"}}}, {"metadata": {"annotations": {"vmnic.dev/abandon": ""}}}],
    ids=["spec", "labels", "annotations"],
)
def test_compromised_controller_changes_only_a_pools_finalizer(cluster, pool, change):
    pool(rollout={"paused": True})
    with pytest.raises(ApiFailure, match=r"ValidatingAdmissionPolicy 'vmnic-controller'.* of a pool"):
        controller(cluster).merge("SriovNetworkPool", "fast", change)


def test_compromised_controller_writes_no_foreign_network(cluster, namespace):
    cluster.api.create(nad("mine", namespace=namespace))
    config = {"spec": {"config": '{"type": "compromised"}'}}
    for verb, body in (("PATCH", config), ("DELETE", None)):
        path = path_of("NetworkAttachmentDefinition", namespace, "mine")
        with pytest.raises(ApiFailure, match="ValidatingAdmissionPolicy 'vmnic-networks'"):
            controller(cluster).request(verb, path, body, "application/merge-patch+json")


@pytest.mark.parametrize(
    ("workload", "namespace", "is_admitted"),
    [
        (("deployments", "vmnic-controller"), NAMESPACE, True),
        (("daemonsets", "vmnic-agent"), AGENT_NAMESPACE, True),
        (("daemonsets", "vmnic-agent"), NAMESPACE, False),
    ],
    ids=["controller", "agent", "agent beside the controller"],
)
def test_pod_security_admits_each_pod_where_it_belongs(cluster, workload, namespace, is_admitted):
    plural, name = workload
    where = NAMESPACE if plural == "deployments" else AGENT_NAMESPACE
    template = cluster.api.request("GET", f"/apis/apps/v1/namespaces/{where}/{plural}/{name}")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": template["spec"]}
    status = status_of(cluster.api, "create", path_of("Pod", namespace), pod)
    assert status == (200 if is_admitted else 403)
