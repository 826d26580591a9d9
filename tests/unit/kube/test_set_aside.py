"""Registry of objects that are set aside."""

import logging

import pytest

from vmnic.kube.set_aside import SetAside, SetAsideObject, SetAsideReason

DECODE, TIME = SetAsideReason.DECODE, SetAsideReason.TIME
VM = ("VirtualMachine", "tenants/web")


@pytest.fixture
def registry():
    return SetAside()


def test_object_is_logged_and_counted_once(registry, caplog):
    with caplog.at_level(logging.ERROR):
        assert [registry.add(*VM, DECODE, "too deep"), registry.add(*VM, DECODE, "too deep")] == [True, False]
    assert [record.getMessage() for record in caplog.records] == [
        "VirtualMachine tenants/web is set aside (decode) until it changes: too deep"
    ]
    assert registry.counts() == {("VirtualMachine", DECODE): 1}


def test_one_reporter_does_not_withdraw_anothers_report(registry):
    registry.add(*VM, DECODE, "too deep")
    registry.add(*VM, TIME, "too slow")
    registry.discard(*VM, DECODE)
    assert registry.items() == (SetAsideObject(*VM, TIME, "too slow"),)
    registry.discard(*VM)
    assert registry.find(*VM) is None


def test_message_is_one_short_line(registry):
    registry.add(*VM, DECODE, "a\nb " + "x" * 1000)
    assert registry.items()[0].message.startswith("a b xxx")
    assert len(registry.items()[0].message) == 300
