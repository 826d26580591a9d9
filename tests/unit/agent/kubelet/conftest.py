"""A kubelet and an agent's device plugin in a directory with a short path."""

import asyncio
import pathlib
import shutil
import tempfile

import pytest

from tests.harness.kubelet import Kubelet
from vmnic.agent.kubelet.plugin import DevicePlugin
from vmnic.agent.kubelet.podresources import KubeletHolders
from vmnic.kube.tasks import cancel_and_wait


@pytest.fixture
def node_directory():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="vk"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def kubelet(node_directory):
    kubelet = Kubelet(node_directory / "dp")
    await kubelet.start()
    yield kubelet
    await kubelet.stop()


class Clock:
    """Seconds that pass only when a test advances them."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def start_plugin(kubelet, node_directory, clock):
    """Return a function that starts plugins, each as one agent's."""
    tasks = []

    def start():
        plugin = DevicePlugin(
            kubelet.directory, node_directory / "info", KubeletHolders(kubelet.pod_resources, kubelet.directory), clock
        )
        tasks.append(asyncio.create_task(plugin.run()))
        plugin.task = tasks[-1]
        return plugin

    yield start
    await cancel_and_wait(tasks)


@pytest.fixture
async def plugin(start_plugin):
    return start_plugin()
