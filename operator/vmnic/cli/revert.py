"""Patch of `kubectl vmnic revert vm`, or why there is none. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kubevirt.revert import RevertRefusedError, render_revert
from ..kubevirt.vm import VirtualMachine
from ..policy.facts import Network
from .set_aside import reason_of

__all__ = ["plan_revert"]

_REMEDY = "annotation vmnic.dev/assigned was changed by another client: restore the NICs by hand, then remove the annotation"


def plan_revert(
    machine: VirtualMachine, networks: Mapping[tuple[str, str], Network] | None = None
) -> tuple[list[dict[str, Any]], str]:
    """Return the operations that restore the original NICs, or why there are none.

    The record is in an annotation that the VM's owner can write, and the patch is sent with the user's own rights.
    """
    try:
        return render_revert(machine, networks), ""
    except RevertRefusedError as error:
        return [], str(error)
    except Exception as error:
        return [], f"{reason_of(error)}: {_REMEDY}"
