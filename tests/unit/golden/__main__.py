"""Regenerate the golden files (`make golden`)."""

import shutil

from tests.harness.packaging import RENDERED, rendered

from .subjects import SUBJECTS
from .test_golden import FILES

shutil.rmtree(FILES, ignore_errors=True)
for name, subject in SUBJECTS.items():
    (FILES / name).parent.mkdir(parents=True, exist_ok=True)
    (FILES / name).write_text(subject())
RENDERED.write_text(rendered())
