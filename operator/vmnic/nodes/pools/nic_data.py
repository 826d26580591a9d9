"""Problems of a pool that the NIC data show without any node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...api.pool import PoolProblem, SriovNetworkPool
from ...api.reasons import PfReason, PoolProblemReason
from ...checked.printable import printable
from ..nics import NicModel, known_names, model_of, models_of, read_models

__all__ = ["find_nic_data_problems"]

_NAMED = 3
_MESSAGE_CHARS = 512


def find_nic_data_problems(pool: SriovNetworkPool) -> list[PoolProblem]:
    """Return what cannot work according to the NIC data."""
    selector = pool.spec.nic_selector
    models = [model for name in selector.models for model in models_of(name)]
    # Device IDs alone say little, because every vendor numbers its devices itself.
    models += [
        model
        for vendor in selector.vendors
        for device in selector.devices
        if (model := model_of(vendor, device)) is not None and model not in models
    ]
    found = [*_unknown_models(selector.models), *_vf_counts(pool, models), *_parameters(pool, models)]
    return [PoolProblem(reason=reason, message=message[:_MESSAGE_CHARS]) for reason, message in found]


def _unknown_models(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    unknown = [name for name in names if name not in known_names()]
    if not unknown:
        return
    near = sorted({one for name in unknown[:_NAMED] for one in known_names() if _is_near(one, name)})
    hint = f" (near: {', '.join(near[:_NAMED])})" if near else ""
    yield (
        PoolProblemReason.UNKNOWN_MODEL,
        f"nicSelector.models: the NIC data have no {_some(unknown)}{hint}: correct the name, or add it to the NIC data",
    )


def _is_near(known: str, name: str) -> bool:
    one, other = known.lower(), name.lower()
    return one in other or other in one


def _vf_counts(pool: SriovNetworkPool, models: Sequence[NicModel]) -> Iterator[tuple[str, str]]:
    count = pool.spec.num_vfs
    if not count or pool.spec.management == "Adopt":
        return
    if without := [model.title for model in models if not model.has_vfs]:
        text = f"{_some(without)} has no SR-IOV: choose another model, or pass it on as a whole with function: Physical"
        yield PfReason.TOO_MANY_VFS, text
    if not isinstance(count, int):
        return
    small = [model for model in models if model.has_vfs and model.max_vfs is not None and model.max_vfs < count]
    if small:
        most = ", ".join(f"{model.title} {model.max_vfs}" for model in small[:_NAMED])
        text = f"numVfs is {count}, but the NIC data allow fewer VFs ({most}): lower numVfs, or set it to max"
        yield PfReason.TOO_MANY_VFS, text


def _parameters(pool: SriovNetworkPool, models: Sequence[NicModel]) -> Iterator[tuple[str, str]]:
    if pool.spec.persistence != "ModuleOptions":
        return
    having = {model.driver for model in read_models() if model.parameter is not None}
    drivers = [*(model.driver for model in models if model.parameter is None), *pool.spec.nic_selector.drivers]
    without = [driver for driver in dict.fromkeys(drivers) if driver not in having]
    if without:
        text = (
            f"persistence: ModuleOptions needs a parameter of the driver, and the NIC data name none for {_some(without)}: set "
            "persistence: Agent, or add the parameter to the NIC data"
        )
        yield PfReason.MODULE_OPTIONS_UNSUPPORTED, text


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more
