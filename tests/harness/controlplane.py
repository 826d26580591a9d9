"""etcd, kube-apiserver and kube-controller-manager on loopback, with API priority and fairness enabled."""

from __future__ import annotations

import json
import pathlib

from .api import Api, wait_for
from .certificates import TOKENS, write_pki
from .processes import Processes, free_port
from .programs import Programs


class ControlPlane:
    """One Kubernetes control plane in a directory."""

    def __init__(self, processes: Processes, programs: Programs) -> None:
        self.directory = processes.directory
        self.processes = processes
        self.programs = programs
        self.pki = self.directory / "pki"
        self.port = free_port()
        self._etcd, self._peer = free_port(), free_port()
        self.server = f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start everything and wait until it answers."""
        write_pki(self.pki)
        for name in TOKENS:
            write_kubeconfig(self.directory / f"{name}.kubeconfig", self.server, self.pki / "ca.crt", f"{name}-token")
        write_admission_configuration(self.directory / "admission.json", self.pki)
        self.api = Api(self.server, self.pki / "ca.crt", "admin-token")
        self._start_etcd()
        self.start_api()
        self._start_controller_manager()

    def start_api(self) -> None:
        """Start kube-apiserver, or restart it on the same port."""
        self.processes.start("kube-apiserver", [self.programs.kube_apiserver, *self._api_flags()], cwd=self.pki)
        wait_for("kube-apiserver is ready", lambda: self.api.request("GET", "/readyz"), 60)

    @property
    def kubeconfig(self) -> pathlib.Path:
        """Return the administrator's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    @property
    def webhook_ca(self) -> pathlib.Path:
        """Return the authority of the client certificate that kube-apiserver presents to webhooks."""
        return self.pki / "ca.crt"

    def service_account(self, namespace: str, name: str, node: str = "") -> dict[str, str]:
        """Create a token and return the environment of a pod under this account.

        It is bound to a node if one is named.
        """
        body: dict[str, object] = {"spec": {"expirationSeconds": 86400}}
        if node:
            pod = self._bound_pod(namespace, name, node)
            body = {"spec": {"expirationSeconds": 86400, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", **pod}}}
        answer = self.api.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", body)
        mounted = self.directory / "accounts" / "-".join(filter(None, (name, node)))
        mounted.mkdir(parents=True, exist_ok=True)
        (mounted / "token").write_text(answer["status"]["token"])
        (mounted / "ca.crt").write_text((self.pki / "ca.crt").read_text())
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "VMNIC_SERVICE_ACCOUNT_DIR": str(mounted),
        }

    def _bound_pod(self, namespace: str, account: str, node: str) -> dict[str, str]:
        """Create the pod that a node-bound token requires.

        Nothing runs in it.
        """
        name = f"{account}-{node}"
        spec = {"nodeName": node, "serviceAccountName": account, "containers": [{"name": "none", "image": "none.invalid/none"}]}
        self.api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
        pod = self.api.get("Pod", name, namespace)
        assert pod is not None
        return {"name": name, "uid": pod["metadata"]["uid"]}

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self.processes.start(
            "etcd",
            [
                self.programs.etcd, "--name=test", f"--data-dir={self.directory}/etcd", "--unsafe-no-fsync", "--log-level=warn",
                f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=test={peer}",
            ],
        )  # fmt: skip

    def _api_flags(self) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd}", f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
            "--tls-cert-file=server.crt", "--tls-private-key-file=server.key", "--client-ca-file=ca.crt",
            "--token-auth-file=tokens.csv", "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
            "--service-account-key-file=sa.pub", "--service-account-signing-key-file=sa.key",
            "--service-account-issuer=https://kubernetes.default.svc", "--allow-privileged=true", "--profiling=false",
            "--requestheader-client-ca-file=ca.crt", "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--proxy-client-cert-file=front-proxy.crt",
            "--proxy-client-key-file=front-proxy.key", f"--admission-control-config-file={self.directory}/admission.json",
        ]  # fmt: skip

    def _start_controller_manager(self) -> None:
        self.processes.start(
            "kube-controller-manager",
            [
                self.programs.kube_controller_manager, f"--kubeconfig={self.directory}/controller-manager.kubeconfig",
                "--leader-elect=false", f"--secure-port={free_port()}", "--bind-address=127.0.0.1",
                "--controllers=garbagecollector,namespace,disruption", "--use-service-account-credentials=false",
            ],
            cwd=self.pki,
        )  # fmt: skip


def write_kubeconfig(path: pathlib.Path, server: str, ca: pathlib.Path, token: str) -> None:
    """Write the kubeconfig of the owner of a token."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(json.dumps(config))


def write_admission_configuration(path: pathlib.Path, pki: pathlib.Path) -> None:
    """Make kube-apiserver present a client certificate to webhooks, as in docs/install.md."""
    user = {"client-certificate": str(pki / "front-proxy.crt"), "client-key": str(pki / "front-proxy.key")}
    kubeconfig = path.with_name("webhooks.kubeconfig")
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}]}))
    group = "apiserver.config.k8s.io/v1"
    configuration = {"apiVersion": group, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": str(kubeconfig)}
    plugins = [
        {"name": name, "configuration": configuration} for name in ("MutatingAdmissionWebhook", "ValidatingAdmissionWebhook")
    ]
    path.write_text(json.dumps({"apiVersion": group, "kind": "AdmissionConfiguration", "plugins": plugins}))
