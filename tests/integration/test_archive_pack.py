"""``zts archive``: the content of torch-model-archiver's archives, and clear words when it cannot be."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from zts.archive import read_model, unpack
from zts.cli.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "src" / "ex" / "sub").mkdir(parents=True)
    for name in ("h.py", "model.py", "w.pt", "r.txt", "c.yaml", "ex/a.txt", "ex/sub/b.txt"):
        (tmp_path / "src" / name).write_text("batchSize: 2\n" if name == "c.yaml" else "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pack(*more: str, name: str = "m", handler: str = "src/h") -> int:
    return main(["archive", "--model-name", name, "-v", "1.0", "--handler", handler, *more])


ALL = [
    *("--serialized-file", "src/w.pt", "--model-file", "src/model.py", "-r", "src/r.txt", "-c", "src/c.yaml"),
    *("--extra-files", "src/ex,src/*.py"),
]
NAMES = {"h.py", "model.py", "w.pt", "r.txt", "c.yaml", "a.txt", "sub/b.txt", "MAR-INF/MANIFEST.json"}


def test_archive_holds_the_files_and_torchserves_manifest(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(*ALL, handler="src/h:run") == 0
    assert capsys.readouterr().out == "m.mar\n"
    with zipfile.ZipFile("m.mar") as archive:
        assert set(archive.namelist()) == NAMES
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    assert re.fullmatch(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", manifest.pop("createdOn"))
    assert manifest.pop("archiverVersion")
    assert manifest == {
        "runtime": "python",
        "model": {
            "modelName": "m",
            "serializedFile": "w.pt",
            "handler": "h:run",
            "modelFile": "model.py",
            "modelVersion": "1.0",
            "requirementsFile": "r.txt",
            "configFile": "c.yaml",
        },
    }


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz", "no-archive"])
def test_every_format_is_read_back_the_same(here: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(*ALL, "--archive-format", form, "--export-path", str(here)) == 0
    made = Path(capsys.readouterr().out.strip())
    assert made.name == {"tgz": "m.tar.gz", "no-archive": "m"}.get(form, "m.mar")
    folder = unpack(made, here / "out")
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == NAMES
    spec, _ = read_model(folder, url="m", args={})
    assert (spec.name, spec.version, spec.handler, spec.batch_size) == ("m", "1.0", "h", 2)


def test_zip_store_is_not_compressed(here: Path) -> None:
    assert pack("--archive-format", "zip-store") == 0
    with zipfile.ZipFile("m.mar") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_built_in_handler_needs_no_file(here: Path) -> None:
    assert pack(handler="image_classifier") == 0
    with zipfile.ZipFile("m.mar") as archive:
        assert archive.namelist() == ["MAR-INF/MANIFEST.json"]


@pytest.mark.parametrize("form", ["default", "no-archive"])
def test_existing_target_is_kept_unless_forced(here: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--archive-format", form]
    assert [pack(*more), pack(*more), pack(*more, "-f")] == [0, 1, 0]
    assert "already exists; overwrite it with -f" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "name", "handler", "words"),
    [
        ([], "a/b", "src/h", "model name 'a/b' is not valid"),
        ([], "m", "src/none", "handler not found: src/none.py"),
        (["--serialized-file", "none.pt"], "m", "src/h", "serialized file not found: none.pt"),
        (["--extra-files", "src/ex,none.txt"], "m", "src/h", "extra file not found: none.txt"),
        (["--export-path", "none"], "m", "src/h", "export path none is not a folder"),
    ],
)
def test_wrong_order_is_one_clear_line_and_writes_nothing(
    here: Path, more: list[str], name: str, handler: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(here.rglob("*"))
    assert pack(*more, name=name, handler=handler) == 1
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert set(here.rglob("*")) == before


def test_pattern_without_a_match_is_a_warning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack("--extra-files", "src/*.none") == 0
    assert "pattern matches no file: src/*.none" in capsys.readouterr().err
