"""Record of a node's host, fetched from its agent by `kubectl exec`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from ..checked.printable import cut
from ..records.document import RecordFileError, parse_record
from ..records.record import HostRecord

__all__ = ["FetchError", "fetch_record"]

_AGENT = "app.kubernetes.io/name=vmnic-agent"
_COMMAND = ("/opt/vmnic/bin/python", "-I", "-m", "vmnic", "host", "record")
_TIMEOUT_S = 120
_MOST_BYTES = 512
"""Most of what kubectl says that is repeated in a message."""


class FetchError(Exception):
    """The record cannot be fetched. The message says what to do."""


def fetch_record(node: str, kubeconfig: str | None, *, anonymise: bool) -> HostRecord:
    """Run the recorder in the agent's pod of a node, and read what it prints.

    Raises:
        FetchError: There is no such pod, kubectl is missing, or the user may not execute commands in pods.
    """
    config = ("--kubeconfig", kubeconfig) if kubeconfig else ()
    selected = ("-A", "-l", _AGENT, "--field-selector", f"spec.nodeName={node},status.phase=Running", "-o", "json")
    listed = _run(("kubectl", *config, "get", "pods", *selected), "list pods")
    try:
        pods = [(str(one["metadata"]["namespace"]), str(one["metadata"]["name"])) for one in json.loads(listed)["items"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError("kubectl get pods printed no list of pods: check that kubectl is Kubernetes' own") from error
    if not pods:
        raise FetchError(f"no agent runs on node {node}: `kubectl get pods -A -o wide -l {_AGENT}` lists those that do")
    namespace, pod = pods[0]
    options = ("--anonymise",) if anonymise else ()
    place = ("-n", namespace, pod, "-c", "agent")
    text = _run(("kubectl", *config, "exec", *place, "--", *_COMMAND, *options), f"create pods/exec in namespace {namespace}")
    try:
        return parse_record(text, f"the agent on {node}")
    except RecordFileError as error:
        raise FetchError(str(error)) from error


def _run(command: Sequence[str], right: str) -> str:
    """Run kubectl and return what it prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except FileNotFoundError as error:
        raise FetchError("kubectl is not installed: install it, or run `vmnic host record` on the node") from error
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"kubectl has not answered for {_TIMEOUT_S} s: check the connection to the cluster") from error
    if done.returncode:
        said = cut(done.stderr.strip() or f"kubectl ended with {done.returncode}", _MOST_BYTES)
        raise FetchError(f"{said}: it needs the right to {right}")
    return done.stdout
