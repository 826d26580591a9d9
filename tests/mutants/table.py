"""The planted faults: what is replaced where, and which tests must notice it."""

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """One fault."""

    what: str
    """What goes wrong, in words."""
    file: str
    """Below `operator/vmnic`."""
    before: str
    """Text that stands there once."""
    after: str
    tests: str
    """Files or directories below `tests/unit`, separated by blanks."""


MUTANTS = (
    Mutant("a file that is put is no write", "host/ops.py", "WriteFile | PutFile | SetLink", "WriteFile | SetLink", "host"),
    Mutant(
        "a grant of an unconfirmed spec is claimed",
        "agent/reconciler.py",
        "if live is None or not live.spec.synced:",
        "if live is None:",
        "agent/test_reconciler.py agent/execute/test_executor.py agent/execute/test_rollback.py",
    ),
    Mutant(
        "approval survives another autoprobe",
        "nodes/planning/digest.py",
        "            observed.autoprobe,\n",
        "",
        "nodes",
    ),
    Mutant(
        "approval survives a use by the host", "nodes/planning/digest.py", "            bool(observed.host_use),\n", "", "nodes"
    ),
    Mutant("approval survives another driver", "nodes/planning/digest.py", "            observed.driver,\n", "", "nodes"),
    Mutant(
        "approval survives other module options",
        "nodes/planning/digest.py",
        "            observed.module_options,\n",
        "",
        "nodes",
    ),
    Mutant("approval survives another spec", "nodes/planning/digest.py", "        spec.allow_host_used,\n", "", "nodes"),
    Mutant(
        "one node too many out of service",
        "nodes/rollout/budget.py",
        "if len(changing) >= allowed or len(chosen) >= room:",
        "if len(changing) > allowed or len(chosen) >= room:",
        "nodes",
    ),
    Mutant(
        "a share of nodes is rounded down",
        "nodes/rollout/budget.py",
        "resolve_percentage(limit, nodes, round_up=True)",
        "resolve_percentage(limit, nodes, round_up=False)",
        "nodes",
    ),
    Mutant(
        "a share of VMs is rounded down",
        "controller/vms/restart_budget.py",
        "sum(matched.values()), round_up=True)",
        "sum(matched.values()), round_up=False)",
        "controller/vms/test_restart_budget.py",
    ),
    Mutant(
        "a change starts on an unconfirmed spec",
        "nodes/rollout/eligibility.py",
        " or not view.ready or not state.spec.synced:",
        " or not view.ready:",
        "nodes",
    ),
    Mutant(
        "a refused run is granted again at once",
        "nodes/rollout/progress.py",
        "_REFUSED_REST_S = 10",
        "_REFUSED_REST_S = 0",
        "nodes",
    ),
    Mutant(
        "a leader's request outlives its lease",
        "kube/client.py",
        "timeout_s = min(timeout_s, left_s)",
        "pass",
        "kube/test_client.py",
    ),
    Mutant(
        "writes are sent without a lease",
        "kube/client.py",
        "if left_s is None or left_s <= 0:",
        "if left_s is None:",
        "kube",
    ),
    Mutant(
        "writes have no limit",
        "kube/client.py",
        "            await asyncio.sleep(self._rate.reserve())",
        "            pass",
        "kube/test_client.py",
    ),
    Mutant(
        "a write that is refused does not lower the rate",
        "kube/client.py",
        "                self._rate.record_refusal(error.retry_after_s)",
        "                pass",
        "kube/test_client.py",
    ),
    Mutant(
        "Retry-After is ignored",
        "kube/workqueue.py",
        "min(error.retry_after_s or 0.0, _BACKOFF_S[1])",
        "0.0",
        "kube/test_workqueue.py",
    ),
    Mutant(
        "the memory of a VFIO device counts twice",
        "policy/checks/platform.py",
        "and not vm.has_vfio and left < _VFIO_BYTES",
        "and left < _VFIO_BYTES",
        "policy",
    ),
    Mutant(
        "half of the guest's memory is too much",
        "policy/queues.py",
        "need > vm.memory_bytes / 2",
        "need >= vm.memory_bytes / 2",
        "policy",
    ),
    Mutant(
        "the last of several quotas counts",
        "kubevirt/quota.py",
        "min(left.get(name, bound), bound - (used or 0))",
        "bound - (used or 0)",
        "kubevirt",
    ),
    Mutant(
        "old patches count after a suspension",
        "controller/vms/reverts.py",
        "and known.digest == digest and not known.yielded_at else ()",
        "and known.digest == digest else ()",
        "controller/vms/test_reverts.py",
    ),
    Mutant(
        "a list of a status exceeds its bound",
        "nodes/bounds.py",
        "for value in values[:most])",
        "for value in values)",
        "nodes",
    ),
    Mutant(
        "an expired lease is held on",
        "kube/lease.py",
        "return left_s if left_s > 0 else None",
        "return left_s",
        "kube",
    ),
    Mutant(
        "a deleted object stays in the cache",
        "kube/reflector.py",
        '            if event.type == "DELETED":\n                self._drop(',
        '            if event.type == "DELETED":\n                (lambda key: key)(',
        "kube",
    ),
    Mutant(
        "a held VF is taken away",
        "nodes/rollout/eligibility.py",
        "return not left",
        "return True",
        "nodes controller/pools/test_fleet.py",
    ),
    Mutant(
        "a change that was rolled back is granted again",
        "nodes/rollout/eligibility.py",
        "return plan.digest in approved\n    return",
        "return True\n    return",
        "nodes",
    ),
    Mutant(
        "a VM is decided although its network cannot be read",
        "controller/caches/facts.py",
        "unreadable=cache.malformed[key])\n\n    def _find_segment",
        'unreadable="")\n\n    def _find_segment',
        "controller/caches/test_unreadable.py",
    ),
    Mutant(
        "a VM that cannot be read gives its VF back",
        "controller/caches/capacity_cache.py",
        "self._claims[key] = self._claims.get(key) or _claim_in_time(key, last)",
        "self._claims[key] = None",
        "controller/caches/test_unreadable.py",
    ),
    Mutant(
        "a change that is being rolled back is chosen again",
        "agent/reconciler.py",
        "            if intent is not None and intent.rolling_back:\n                continue\n",
        "",
        "agent/execute/test_rollback.py",
    ),
)
