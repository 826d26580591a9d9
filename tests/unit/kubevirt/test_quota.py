"""What the quotas of a namespace leave."""

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
def test_of_several_quotas_the_least_is_left(order):
    assert left(*order) == {"memory": 3 << 30}


def test_what_is_no_device_is_left_out():
    assert left((DEVICE, "4", "1"), ("requests.cpu", "4", "1"), ("pods", "5", "1")) == {"vmnic.dev/fast": 3}
