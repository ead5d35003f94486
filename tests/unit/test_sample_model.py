"""The committed sample model: its archive fits its sources, its samples are what the data set has.

Needs neither torch nor scikit-learn; the accuracy is tested in tests/integration.
"""

import ast
import json
import zipfile
from pathlib import Path

import pytest

STORE = Path(__file__).resolve().parents[2] / "model_store"
SOURCES = STORE / "digits"
ARCHIVE = STORE / "digits.mar"
ARCHIVED_FILES = ["digits.pt", "handler.py", "index_to_name.json", "model-config.yaml", "model.py"]
MANIFEST_NAME = "MAR-INF/MANIFEST.json"
GREY_OF_INK = [round(ink * 255 / 16) for ink in range(17)]


def test_archive_is_below_300_kilobytes() -> None:
    assert ARCHIVE.stat().st_size < 300_000


def test_archive_holds_the_manifest_and_its_files_at_the_root() -> None:
    with zipfile.ZipFile(ARCHIVE) as mar:
        assert sorted(mar.namelist()) == sorted([*ARCHIVED_FILES, MANIFEST_NAME])


@pytest.mark.parametrize("name", ARCHIVED_FILES)
def test_archived_file_is_the_one_in_the_folder(name: str) -> None:
    with zipfile.ZipFile(ARCHIVE) as mar:
        assert mar.read(name) == (SOURCES / name).read_bytes(), "pack again: train.py --archive-only"


def test_manifest_names_the_archived_files() -> None:
    with zipfile.ZipFile(ARCHIVE) as mar:
        manifest = json.loads(mar.read(MANIFEST_NAME))
    assert manifest["runtime"] == "python"
    assert {"createdOn", "archiverVersion"} <= manifest.keys()
    assert manifest["model"] == {
        "modelName": "digits",
        "serializedFile": "digits.pt",
        "handler": "handler.py",
        "modelFile": "model.py",
        "modelVersion": "1.0",
        "configFile": "model-config.yaml",
    }


def test_labels_are_the_ten_digits() -> None:
    labels = json.loads((SOURCES / "index_to_name.json").read_text())
    assert labels == {str(digit): str(digit) for digit in range(10)}


@pytest.mark.parametrize("name", ["model.py", "handler.py"])
def test_archived_module_defines_exactly_one_class(name: str) -> None:
    module = ast.parse((SOURCES / name).read_text())
    assert sum(isinstance(node, ast.ClassDef) for node in ast.walk(module)) == 1


def test_there_is_one_sample_for_each_digit() -> None:
    assert sorted(path.name for path in (SOURCES / "samples").iterdir()) == [f"{digit}.png" for digit in range(10)]


@pytest.mark.parametrize("digit", range(10))
def test_sample_gives_back_whole_steps_of_ink(digit: int) -> None:
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(SOURCES / "samples" / f"{digit}.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (64, 64))
        small = image.resize((8, 8), image_module.Resampling.BOX)
        assert small.resize((64, 64), image_module.Resampling.NEAREST).tobytes() == image.tobytes()
    assert set(small.tobytes()) <= set(GREY_OF_INK)
    assert max(small.tobytes()) > 0
