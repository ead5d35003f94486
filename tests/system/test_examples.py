"""Every folder of examples/ does what its README says: its commands are run as they stand, and print what it shows.

Each example runs in a copy of its folder, in one shell, as a reader would (``tests/system/page_stage.py``).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.system.page_stage import Stage, check_page

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
FOLDERS: Final = sorted(path.parent for path in EXAMPLES.glob("*/README.md"))


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(Path(tempfile.mkdtemp(prefix="zts-e-")), request.param)
    yield made
    made.close()


@pytest.mark.parametrize("stage", FOLDERS, ids=lambda path: path.name, indirect=True)
def test_readme_is_true(stage: Stage) -> None:
    check_page(stage, (stage.folder / "README.md").read_text(), f"{stage.folder.name}/README.md")


def test_examples_are_there() -> None:
    assert FOLDERS


def test_every_example_is_in_the_table_and_has_a_readme() -> None:
    table = (EXAMPLES / "README.md").read_text()
    named = set(re.findall(r"^\| \[\w+\]\((\w+)/?\) \|", table, re.MULTILINE))
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert named == folders == {path.name for path in FOLDERS}


@pytest.mark.parametrize("folder", [EXAMPLES, *FOLDERS], ids=lambda path: path.name)
def test_links_lead_to_files(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    missing = [link for link in links if link and not (folder / link).exists()]
    assert not missing
