"""A change that another client reverts twice within an hour is suspended for a day."""

from datetime import UTC, datetime, timedelta

from vmnic.controller.vms.reverts import digest_of, is_suspended, record_patch, record_revert

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATCH = [{"op": "test", "path": "/a", "value": 1}, {"op": "add", "path": "/b/model", "value": "virtio"}]


def patched(*hours, digest="d"):
    known = None
    for at in hours:
        known = record_patch(known, digest, START + at * HOUR)
    return known


def test_third_patch_is_not_made():
    known = patched(0, 0.1)
    given_in = record_revert(known, "d", START + 0.2 * HOUR, "argocd")
    assert (given_in.manager, is_suspended(given_in, "d", START + 0.3 * HOUR)) == ("argocd", True)


def test_reverts_that_are_few_or_far_apart_do_not_suspend():
    assert record_revert(patched(0), "d", START, "x") is None
    assert record_revert(patched(0, 2), "d", START + 2.1 * HOUR, "x") is None


def test_different_change_is_not_suspended():
    assert record_revert(patched(0, 0.1), "e", START + 0.2 * HOUR, "x") is None
    assert record_patch(patched(0, 0.1), "e", START + 0.2 * HOUR).patched_at == ("2026-01-01T00:12:00Z",)


def test_suspension_lasts_a_day():
    given_in = record_revert(patched(0, 0.1), "d", START + 0.2 * HOUR, "x")
    assert is_suspended(given_in, "d", START + 24 * HOUR)
    assert not is_suspended(given_in, "d", START + 24.3 * HOUR)


def test_patches_before_a_suspension_do_not_count_after_it():
    given_in = record_revert(patched(0, 0.1), "d", START + 0.2 * HOUR, "x")
    assert record_patch(given_in, "d", START + 0.3 * HOUR).patched_at == ("2026-01-01T00:18:00Z",)


def test_digest_depends_on_what_a_patch_writes():
    other = [
        {"op": "add", "path": "/b/macAddress", "value": "x"},
        {"op": "add", "path": "/metadata/annotations/x", "value": ""},
    ]
    assert digest_of(PATCH) == digest_of(PATCH[1:]) == digest_of([*PATCH, *other])
    assert digest_of(PATCH) != digest_of([{**PATCH[1], "value": "e1000e"}])
