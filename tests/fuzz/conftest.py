"""Fuzzing logs nothing but how to repeat it."""

import logging

import pytest

from .settings import COUNT, SEED


@pytest.fixture(autouse=True)
def quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def pytest_report_header():
    return f"fuzzing with VMNIC_FUZZ_SEED={SEED} VMNIC_FUZZ_COUNT={COUNT}"
