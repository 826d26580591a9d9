"""Remaining amounts of a namespace's quotas."""

import itertools

import msgspec
import pytest

from tests.builders.vm import quota
from vmnic.kubevirt.quota import quota_left
from vmnic.kubevirt.vm import decode_quota

MEMORY, DEVICE = "requests.memory", "requests.vmnic.dev/fast"


def left(*pairs):
    return quota_left(decode_quota(msgspec.json.encode(quota(hard={key: hard}, used={key: used}))) for key, hard, used in pairs)


@pytest.mark.parametrize(
    "order", list(itertools.permutations([(MEMORY, "8Gi", "2Gi"), ("memory", "4Gi", "1Gi"), (MEMORY, "9Gi", "0")]))
)
def test_the_smallest_amount_of_several_quotas_counts(order):
    assert left(*order) == {"memory": 3 << 30}


def test_resources_other_than_devices_are_ignored():
    assert left((DEVICE, "4", "1"), ("requests.cpu", "4", "1"), ("pods", "5", "1")) == {"vmnic.dev/fast": 3}
