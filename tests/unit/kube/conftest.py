"""The API server whose faults are scripted."""

import pytest

from .fake_api import FakeApi


@pytest.fixture
async def api():
    fake = FakeApi()
    fake.connection = await fake.start()
    yield fake
    await fake.stop()
