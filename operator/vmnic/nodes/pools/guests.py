"""Guest operating systems that have a driver for a pool's VFs, found by the PCI IDs of its PFs.

The model name that an agent publishes is for people and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...api.node_state import NodeNicState, PfStatus
from ...api.pool import PoolProblem, SriovNetworkPool
from ..nics import NicModel
from ..vf_limits import data_of
from .shares import pool_shares

__all__ = ["drives_windows", "find_mixed_support", "models_without_windows"]

_NAMED_NODES = 3


def models_without_windows(pfs: Iterable[PfStatus]) -> tuple[str, ...]:
    """Return the models of those PFs whose VFs have no driver for Windows, without unknown models."""
    models = (data_of(pf) for pf in pfs)
    return tuple(sorted({model.title for model in models if model is not None and not drives_windows(model)}))


def drives_windows(model: NicModel) -> bool:
    """Return whether Windows has a driver for the model's VFs, also if that is unknown."""
    return model.vf_guests is None or "windows" in model.vf_guests


def find_mixed_support(pool: SriovNetworkPool, states: Iterable[NodeNicState]) -> PoolProblem | None:
    """Return a problem if Windows has a driver for the VFs of some nodes only, or None if all nodes agree."""
    if pool.spec.function != "Virtual":
        return None
    without: dict[str, tuple[str, ...]] = {}
    others = False
    for state in states:
        pfs = [part.pf for part in pool_shares(state, pool.metadata.name)]
        models = models_without_windows(pfs)
        if models:
            without[state.metadata.name] = models
        others = others or bool(pfs and not models)
    if not without or not others:
        return None
    names = sorted(without)
    more = f" and {len(names) - _NAMED_NODES} more" if len(names) > _NAMED_NODES else ""
    which = ", ".join(sorted({model for models in without.values() for model in models}))
    text = (
        f"Windows has no driver for the VFs of {which} (nodes {', '.join(names[:_NAMED_NODES])}{more}) and has one for other "
        "nodes' VFs: make a pool for each with nicSelector.models; until then guests other than Linux get no VF there"
    )
    # The CRD allows 512 characters, and a longer message would make the API server refuse the whole status.
    return PoolProblem(reason="MixedGuestSupport", message=text[:512])
