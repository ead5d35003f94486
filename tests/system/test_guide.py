"""What docs/guide/ and the README show of a terminal is true: their commands are run as they stand.

A block with ``title="NAME"`` is the file NAME; the blocks marked ``console`` are run in a folder with these files.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.system.page_stage import Stage, check_page

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
_FILE: Final = re.compile(r'^```\w+ title="([\w.-]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    root = Path(tempfile.mkdtemp(prefix="zts-g-"))
    source = root / "page"
    source.mkdir()
    for name, text in _FILE.findall(request.param.read_text()):
        (source / name).write_text(text)
    # A model of a start has as many workers as there are cores: one is enough here.
    made = Stage(root, source, root / "work", {"ZTS_DEFAULT_WORKERS_PER_MODEL": "1"})
    yield made
    made.close()


@pytest.mark.parametrize(
    ("page", "stage"), [(page, page) for page in PAGES], ids=[page.stem for page in PAGES], indirect=["stage"]
)
def test_page_is_true(page: Path, stage: Stage) -> None:
    check_page(stage, page.read_text(), page.name)


def test_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "guide" / "configuration" / "index.html").is_file()
