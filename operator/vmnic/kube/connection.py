"""Address and credentials of the API server, from inside the cluster or from a kubeconfig."""

from __future__ import annotations

import os
import pathlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = [
    "SERVICE_ACCOUNT_DIRECTORY",
    "Connection",
    "ConnectionFileError",
    "in_cluster_connection",
    "kubeconfig_connection",
]

SERVICE_ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"


class ConnectionFileError(Exception):
    """The files or variables that describe the API server are missing or wrong.

    The message names them.
    """


@dataclass(frozen=True, slots=True)
class Connection:
    """One API server and one identity."""

    server: str
    """`https://host:port`, without a trailing slash."""
    tls: ssl.SSLContext
    token: Callable[[], str | None]
    """Returns the current bearer token. The kubelet renews the file."""
    ca_file: str = ""


def in_cluster_connection(environment: Mapping[str, str] = os.environ) -> Connection:
    """Return the connection of a pod.

    It uses KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, and the mounted service account.

    Raises:
        ConnectionFileError: a variable is not set or a file cannot be read.
    """
    directory = pathlib.Path(environment.get("VMNIC_SERVICE_ACCOUNT_DIR", SERVICE_ACCOUNT_DIRECTORY))
    try:
        host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    except KeyError as missing:
        raise ConnectionFileError(f"{missing.args[0]} is not set: run this in a pod, or set it") from missing
    token_file, ca_file = directory / "token", directory / "ca.crt"
    try:
        # Only to fail at the start if it is missing. Each request reads it again, because the kubelet replaces the token.
        token_file.read_text()
        tls = ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise ConnectionFileError(f"{error.filename or ca_file}: {error.strerror}: is a service account mounted?") from error
    # In an IPv6 cluster, KUBERNETES_SERVICE_HOST is an address without brackets.
    bracketed = f"[{host}]" if ":" in host else host
    return Connection(f"https://{bracketed}:{port}", tls, lambda: token_file.read_text().strip(), str(ca_file))


def kubeconfig_connection(path: str | None = None, context: str | None = None) -> Connection:
    """Return the connection that kubectl would use.

    Without a path, KUBECONFIG or the user's own file is read.

    Raises:
        ConnectionFileError: there is no kubeconfig, or it is not usable.
    """
    from kubernetes.client import Configuration  # noqa: PLC0415 - slow to import, and only people's commands need it
    from kubernetes.config import ConfigException, load_kube_config  # noqa: PLC0415 - likewise

    configuration = Configuration()
    try:
        load_kube_config(config_file=path, context=context, client_configuration=configuration)
    except ConfigException as error:
        raise ConnectionFileError(f"{error}: set KUBECONFIG or give --kubeconfig") from error
    tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        tls.load_cert_chain(configuration.cert_file, configuration.key_file)

    def token() -> str | None:
        header = configuration.get_api_key_with_prefix("BearerToken") or ""
        return header.removeprefix("Bearer ").strip() or None

    return Connection(configuration.host.rstrip("/"), tls, token, configuration.ssl_ca_cert or "")
