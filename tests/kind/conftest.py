"""One cluster for the whole tier, installed as in the README. The files run in the order of a user's steps."""

import pathlib
import time

import pytest

from .installation import install
from .lab import prepare
from .pods import Pods

_ORDER = ("sysfs", "installation", "pools", "pods", "plugin", "machines", "guests", "survival", "uninstall", "chart")
_NAME = "vmnic-test"
_FIGURES = {}


def pytest_addoption(parser):
    parser.addoption("--kept", action="store_true", help="use the cluster of `make kind-up`, and leave it")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _ORDER.index(pathlib.Path(item.path).stem.removeprefix("test_")))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("figures")
    for what, figure in _FIGURES.items():
        terminalreporter.write_line(f"{what:60} {figure}")


@pytest.fixture(scope="session")
def figures():
    """Return the figures that are printed at the end."""
    return _FIGURES


@pytest.fixture(scope="session")
def lab():
    return prepare()


@pytest.fixture(scope="session")
def cluster(lab, figures, request):
    """Yield a cluster with KubeVirt's control plane, simulated hosts and vmnic."""
    if request.config.getoption("kept"):
        kept = lab.cluster("vmnic")
        kept.connect()
        yield kept
        return
    lab.build_image()
    figures["image: whole, and of it the base"] = f"{lab.image_bytes() / 1e6:.0f} MB, {lab.base_bytes() / 1e6:.0f} MB"
    started = time.monotonic()
    made = lab.start(_NAME)
    try:
        figures["a cluster of three nodes, with KubeVirt's control plane"] = f"{time.monotonic() - started:.0f} s"
        install(made)
        yield made
    finally:
        made.delete()


@pytest.fixture
def pods(cluster):
    """Yield pods that are deleted after the test."""
    made = Pods(cluster)
    yield made
    made.end()
