"""Giving in to somebody who puts patches back, on a clock of the test's own."""

from vmnic.controller.reconcile.reverts import Reverts
from vmnic.kube.reflector import ObjectKey

VM = ObjectKey("tenants", "web")
PATCH = [{"op": "add", "path": "/model", "value": "virtio"}]
OTHER = [{"op": "add", "path": "/model", "value": "e1000e"}]
HOUR, DAY = 3600, 86400


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def patched(times, *, every=1.0, patch=PATCH):
    clock = Clock()
    reverts = Reverts(clock)
    for _ in range(times):
        reverts.remember(VM, patch)
        clock.now += every
    return reverts, clock


def test_one_revert_is_patched_again_and_a_second_is_not():
    assert patched(1)[0].allows(VM, PATCH)
    assert not patched(2)[0].allows(VM, PATCH)


def test_reverts_far_apart_do_not_count_together():
    assert patched(5, every=HOUR)[0].allows(VM, PATCH)


def test_peace_lasts_a_day():
    reverts, clock = patched(2)
    seen = []
    for after in (0, DAY - 10, 20):
        clock.now += after
        seen.append(reverts.allows(VM, PATCH))
    assert seen == [False, False, True]


def test_another_patch_starts_anew():
    assert patched(2)[0].allows(VM, OTHER)


def test_another_vm_is_not_concerned():
    assert patched(2)[0].allows(ObjectKey("tenants", "db"), PATCH)


def test_a_vm_that_is_gone_is_forgotten():
    reverts, _ = patched(2)
    reverts.forget(VM)
    assert reverts.allows(VM, PATCH)
