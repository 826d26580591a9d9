"""Remedies for the kernel's errnos, by the action that failed."""

from __future__ import annotations

import errno

from ..api.node_state import ActionKind
from ..api.reasons import PfReason

__all__ = ["describe_errno", "errno_name", "reason_for"]

_NO_ROOM = "the firmware left no room for the VFs: add pci=realloc to the kernel command line and reboot"
_FORBIDDEN = (
    "the container's security profile or capabilities forbid it: mount the host's /sys below --root as the manifests do, or "
    "use the overlay apparmor-unconfined"
)
_OF_STEP: dict[tuple[ActionKind, int], str] = {
    (ActionKind.SET_NUM_VFS, errno.ENOMEM): _NO_ROOM,
    (ActionKind.SET_NUM_VFS, errno.ENOSPC): _NO_ROOM,
    (
        ActionKind.SET_NUM_VFS,
        errno.ENOENT,
    ): "the driver creates VFs only when it is loaded: set persistence: ModuleOptions, and parameter and countBy: parameter in "
    "the NIC data",
    (ActionKind.SET_NUM_VFS, errno.EBUSY): "another program has created VFs: remove the function from its configuration",
    # The applier raises this one and those below with ETIMEDOUT: the kernel itself answers success.
    (ActionKind.SET_NUM_VFS, errno.ETIMEDOUT): "the driver created fewer VFs than requested: check the kernel log",
    (ActionKind.BIND_VFS, errno.ENODEV): "the driver did not bind: check the kernel log",
    (ActionKind.BIND_PF, errno.ENODEV): "the driver did not bind: check the kernel log",
    (ActionKind.BIND_VFS, errno.ETIMEDOUT): "load the VF driver on the node, check the kernel log for why it does "
    "not bind, or set vfDriver: vfio-pci",
    (
        ActionKind.BIND_PF,
        errno.ETIMEDOUT,
    ): "load the NIC's driver, or check the kernel log for why it does not bind",
    # Raised by the applier before it sets rates. igb itself would answer EINVAL, which says less.
    (ActionKind.SET_VFS, errno.ENETDOWN): "NICs accept rates only while the link has a carrier: connect the port, or leave "
    "minTxRateMbps and maxTxRateMbps out of spec.vf",
    (ActionKind.SET_VFS, errno.EOPNOTSUPP): "the NIC's driver does not support this attribute: leave it out of spec.vf",
    (ActionKind.SET_VFS, errno.EPROTONOSUPPORT): "the NIC's driver does not support this vlanProtocol: leave it out of spec.vf",
    (ActionKind.SET_VFS, errno.EINVAL): "the NIC's driver refuses this value: change spec.vf",
    (ActionKind.SET_MTU, errno.EINVAL): "the NIC's driver refuses this MTU: lower spec.mtu",
    (ActionKind.SET_QUEUES, errno.EINVAL): "the NIC has fewer queues: lower spec.queues",
    (ActionKind.SET_QUEUES, errno.EOPNOTSUPP): "the NIC's driver has no queues to set: leave spec.queues out",
    (ActionKind.RELOAD_DRIVER, errno.EPERM): "loading modules needs CAP_SYS_MODULE: use the overlay module-options",
    (ActionKind.RELOAD_DRIVER, errno.EBUSY): "something uses the driver: free it, or reboot the node",
    (ActionKind.RELOAD_DRIVER, errno.EKEYREJECTED): "the kernel does not trust the module (Secure Boot): sign it",
    (ActionKind.WRITE_UDEV_RULE, errno.ENOENT): "/etc/udev/rules.d does not exist: use the overlay udev-rules",
    (ActionKind.WRITE_UDEV_RULE, errno.EROFS): "/etc/udev/rules.d is read-only: use the overlay udev-rules",
    (
        ActionKind.WRITE_UDEV_RULE,
        errno.ENAMETOOLONG,
    ): "the name of the pool is too long for a file: create it with another name",
    (ActionKind.WRITE_MODULE_OPTIONS, errno.ENOENT): "/etc/modprobe.d does not exist: use the overlay module-options",
}
_OF_ANY: dict[int, str] = {
    errno.EROFS: "the host's /sys is mounted read-only for the agent: mount it writable below --root, as the manifests do",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: "the NIC's firmware or driver failed: check the kernel log, then update the firmware or change the NIC",
    errno.ENODEV: "the function or its link is gone: check the hardware and the kernel log",
    errno.ENOENT: "the function or its link is gone: check the hardware and the kernel log",
    errno.EMSGSIZE: "the kernel's answer has no room for so many VFs: update the kernel, or create fewer VFs",
    errno.ENOSPC: "a file system of the host is full: free it",
}


def errno_name(error: OSError) -> str:
    """Return the kernel's name of an error.

    Python has another name for the number of EOPNOTSUPP.
    """
    code = error.errno or 0
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code, str(code))


def _remedy_for(kind: ActionKind | None, code: int) -> str:
    return (kind is not None and _OF_STEP.get((kind, code))) or _OF_ANY.get(code, "check the kernel log")


def describe_errno(error: OSError, kind: ActionKind | None = None) -> str:
    """Describe what the kernel answered and what to do.

    A refused read has no action.
    """
    code = error.errno or 0
    return f"{errno_name(error)} ({error.strerror}): {_remedy_for(kind, code)}"


def reason_for(message: str) -> PfReason:
    """Return the reason of a failed change, which distinguishes a NIC without MMIO space for its VFs."""
    # The journal keeps the message and not the errno, so a later agent can recognize the cause only by its text.
    return PfReason.NO_MMIO_SPACE if _NO_ROOM in message else PfReason.APPLY_FAILED
