"""Make `CHANGELOG.md` from the fragments in `changelog.d`: `python docs/make_changelog.py` (`make changelog`)."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
FRAGMENTS = ROOT / "changelog.d"
HEADINGS = ("Added", "Changed", "Fixed", "Removed")


def render_changelog() -> str:
    """Return the changelog: the entries of all fragments, by heading.

    Raises:
        ValueError: a fragment has another heading, or text before its first one.
    """
    entries: dict[str, list[str]] = {heading: [] for heading in HEADINGS}
    for path in sorted(FRAGMENTS.glob("*.md")):
        before, *sections = re.split(r"^### (.*)\n", path.read_text(), flags=re.MULTILINE)
        if before.strip() or not sections:
            raise ValueError(f"{path.name}: a fragment begins with one of {', '.join(f'### {one}' for one in HEADINGS)}")
        for heading, text in zip(sections[::2], sections[1::2], strict=True):
            if heading not in entries:
                raise ValueError(f"{path.name}: {heading!r} is none of {', '.join(HEADINGS)}")
            entries[heading].append(text.strip())
    found = "\n".join(f"\n### {heading}\n\n{chr(10).join(texts)}" for heading, texts in entries.items() if texts)
    return f"# Changelog\n\n## Unreleased\n{found}\n"


if __name__ == "__main__":
    (ROOT / "CHANGELOG.md").write_text(render_changelog())
