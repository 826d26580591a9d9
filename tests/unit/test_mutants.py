"""The table of planted faults stays in step with the code."""

import pathlib

import pytest

from tests.mutants.table import MUTANTS

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_planted_fault_has_its_place_and_its_tests(mutant):
    assert (ROOT / "operator" / "vmnic" / mutant.file).read_text().count(mutant.before) == 1
    assert [name for name in mutant.tests.split() if not (ROOT / "tests" / "unit" / name).exists()] == []
