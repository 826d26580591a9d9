"""Argo CD's health checks, in Argo's own layout, run by a real Lua interpreter."""

import pytest
import yaml

from tests.builders.argocd import CHECKS, health

CASES = [
    (path.parent, case["inputPath"], case["healthStatus"])
    for path in sorted(CHECKS.glob("*/health_test.yaml"))
    for case in yaml.safe_load(path.read_text())["tests"]
]


@pytest.mark.parametrize(("directory", "given", "expected"), CASES, ids=[f"{d.name}-{given[9:-5]}" for d, given, _ in CASES])
def test_the_health_of_each_kind_is_reported(directory, given, expected):
    raw = yaml.safe_load((directory / given).read_text())
    assert raw["kind"] == directory.name
    assert health(raw) == (expected["status"], expected["message"])


def test_every_object_of_the_test_data_is_used():
    assert {str(path) for path in CHECKS.glob("*/testdata/*.yaml")} == {str(directory / given) for directory, given, _ in CASES}
    assert len(CASES) > 20
