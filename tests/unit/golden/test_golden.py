"""Comparison of each subject with its golden file.

`make golden` regenerates the files, and the commit explains the differences.
"""

import pathlib

import pytest

from .subjects import SUBJECTS

FILES = pathlib.Path(__file__).parent / "files"


@pytest.mark.parametrize("name", SUBJECTS)
def test_output_is_what_the_golden_file_says(name):
    assert SUBJECTS[name]() == (FILES / name).read_text(), "if the change is wanted: make golden"


def test_every_golden_file_has_a_subject():
    assert {str(path.relative_to(FILES)) for path in FILES.rglob("*.txt")} == set(SUBJECTS)
