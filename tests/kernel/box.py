"""Containers in the guest.

runc creates them from the manifests in `deploy/`, under rules like those of container engines.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from .lab import ROOT
from .node import PROGRAM, Node

__all__ = ["Box", "agent_pod", "load_profile"]

PROFILE = "container-rules"
_APPARMOR = f"""
profile {PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  network,
  capability,
  file,
  umount,
  signal,
  deny mount,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/sys/** wklx,
  deny /proc/* wklx,
  deny /proc/[^0-9]*/** wklx,
  deny /sys/** wklx,
}}
"""
"""What the default profiles of container engines deny, plus mounting and writes to the usual paths of kernel files."""
_REFUSED_CALLS = {
    "CAP_SYS_MODULE": ("init_module", "finit_module", "delete_module"),
    "CAP_SYS_ADMIN": (
        "mount", "umount2", "pivot_root", "setns", "unshare", "bpf", "perf_event_open", "quotactl", "swapon", "swapoff", "fsopen",
        "fsmount", "move_mount", "open_tree", "sethostname", "setdomainname",
    ),
    "CAP_SYS_BOOT": ("reboot", "kexec_load", "kexec_file_load"),
    "CAP_SYS_TIME": ("settimeofday", "clock_settime", "adjtimex"),
    "CAP_SYS_PTRACE": ("process_vm_readv", "process_vm_writev", "kcmp"),
    "": ("add_key", "keyctl", "request_key", "userfaultfd", "iopl", "ioperm", "open_by_handle_at", "acct"),
}  # fmt: skip
"""System calls that the default filter of container engines refuses without a capability."""


def agent_pod() -> dict[str, Any]:
    """Return the agent's pod spec as it ships for nodes that run libvirt."""
    documents = yaml.safe_load_all((ROOT / "deploy" / "base" / "agent.yaml").read_text())
    spec: dict[str, Any] = next(one for one in documents if one["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    component = yaml.safe_load((ROOT / "deploy" / "components" / "libvirt" / "kustomization.yaml").read_text())
    added = yaml.safe_load(component["patches"][0]["patch"])["spec"]["template"]["spec"]
    spec["volumes"] += added["volumes"]
    spec["containers"][0]["volumeMounts"] += added["containers"][0]["volumeMounts"]
    return spec


def load_profile(node: Node) -> None:
    """Load the AppArmor profile into the kernel."""
    path = node.machine.keep / "profile"
    path.write_text(_APPARMOR)
    node.guest.run("apparmor_parser", "--replace", "--skip-cache", "/keep/profile")


class Box:
    """One container of the pod, whose root is the guest's own root, read-only."""

    def __init__(self, node: Node, name: str, container: dict[str, Any], volumes: list[dict[str, Any]]) -> None:
        self._node = node
        self.name = name
        self._container = container
        self._volumes = {volume["name"]: volume for volume in volumes}
        self.mounts = [self._mount(one) for one in container["volumeMounts"]]
        self.args = [PROGRAM, *container["args"]]

    def _mount(self, mount: dict[str, Any]) -> dict[str, Any]:
        """Return a mount as the kubelet would create it.

        Directories that the kubelet creates, or that exist on a node with a kubelet, are created.
        """
        access = "ro" if mount.get("readOnly") else "rw"
        source = self._volumes[mount["name"]].get("hostPath", {}).get("path")
        if source is None:
            return {"destination": mount["mountPath"], "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]}
        if not source.startswith(("/sys", "/lib")):
            self._node.guest.run("mkdir", "-p", source)
        return bind(source, mount["mountPath"], access)

    def start(self) -> int:
        """Start the container and return the process id of runc, which ends with it."""
        self.write()
        return self._node.guest.start_program(["runc", "run", "--bundle", self._bundle, self.name], log="/keep/agent.log")

    def run(self) -> tuple[int, str]:
        """Run the container to its end."""
        self.write()
        return self._node.guest.try_run("runc", "run", "--bundle", self._bundle, self.name)

    @property
    def _bundle(self) -> str:
        return f"/run/box/{self.name}"

    def write(self) -> None:
        """Write runc's configuration and set up the root."""
        config = json.dumps(self._config())
        (self._node.machine.keep / f"{self.name}.json").write_text(config)
        script = (
            f"mkdir -p {self._bundle}/root && cp /keep/{self.name}.json {self._bundle}/config.json && "
            f"(mountpoint -q {self._bundle}/root || mount --bind / {self._bundle}/root)"
        )
        self._node.guest.run("bash", "-c", script)

    def _config(self) -> dict[str, Any]:
        context = self._container["securityContext"]
        granted = [f"CAP_{name}" for name in context["capabilities"].get("add", [])]
        assert context["capabilities"]["drop"] == ["ALL"]
        env = self._node.environment() | {one["name"]: one["value"] for one in self._container["env"] if "value" in one}
        env |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "VMNIC_STATE_DIR": "/var/lib/vmnic"}
        env.pop("VMNIC_SERVICE_ACCOUNT_DIR")
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": self.args, "env": [f"{key}={text}" for key, text in env.items()],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), granted),
                "noNewPrivileges": not context["allowPrivilegeEscalation"], "apparmorProfile": PROFILE,
            },
            "root": {"path": "root", "readonly": context["readOnlyRootFilesystem"]},
            "mounts": [*_USUAL, *self.mounts, *_checkout(), bind("/keep/account", "/var/run/secrets/kubernetes.io/serviceaccount", "ro")],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "seccomp": _filter(granted),
                "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/irq", "/proc/sysrq-trigger"],
            },
        }  # fmt: skip


_USUAL = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
]


def _checkout() -> list[dict[str, Any]]:
    """Return a mount that shows a checkout below /tmp, which the container's own /tmp would hide."""
    return [bind(str(ROOT), str(ROOT), "ro")] if ROOT.is_relative_to("/tmp") else []


def bind(source: str, destination: str, access: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate", access]}


def _filter(granted: list[str]) -> dict[str, Any]:
    names = [name for capability, calls in _REFUSED_CALLS.items() if capability not in granted for name in calls]
    refused = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [refused]}
