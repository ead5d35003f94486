"""Our archiver beside the real one, member by member, and its Python interface."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from zts.archive.compat import ModelArchiverConfig, generate_model_archive
from zts.cli.main import main
from zts.errors import ConfigError

REAL = shutil.which("torch-model-archiver", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

CASES = [
    "--handler h.py",
    "--handler h",
    "--handler h:fn",
    "--handler image_classifier",
    "--handler densenet_handler",
    "--handler nofile.py",
    *[
        f"--handler h.py --archive-format {kind} --serialized-file w.pt --model-file m.py -r req.txt -c cfg.yaml "
        "--extra-files a.txt,x"
        for kind in ("default", "tgz", "no-archive", "zip-store")
    ],
    *[
        f"--handler h.py --extra-files {files}"
        for files in ("a.txt", "*.txt", "x", "x/", "x,a.txt", "a.txt,x", "nofile", "*.none", "b[0-9].json", "x/*")
    ],
    "--handler h.py --runtime python3",
    "--handler h.py --serialized-file nofile",
    "--handler h.py --serialized-file x/../w.pt",
]


@pytest.fixture(autouse=True)
def _sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x" / "sub").mkdir(parents=True)
    for name in ("h.py", "m.py", "w.pt", "req.txt", "cfg.yaml", "a.txt", "b1.json", "x/c.txt", "x/a.txt", "x/sub/d"):
        Path(name).write_text(name)


def content(path: Path) -> dict[str, bytes | str]:
    """Return name → bytes; the manifest without what must differ."""
    found: dict[str, bytes] = {}
    if path.is_dir():
        found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    elif path.name.endswith(".tar.gz"):
        with tarfile.open(path) as tar:
            for member in tar:
                if (source := tar.extractfile(member)) is not None:
                    found[member.name] = source.read()
    else:
        with zipfile.ZipFile(path) as archive:
            found = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
    return {name: manifest_text(data) if name.endswith("MANIFEST.json") else data for name, data in found.items()}


def manifest_text(data: bytes) -> str:
    return json.dumps({**json.loads(data), "createdOn": "", "archiverVersion": ""})


@pytest.mark.skipif(REAL is None, reason="torch-model-archiver is not installed")
@pytest.mark.parametrize("flags", CASES)
def test_content_is_that_of_torch_model_archiver(tmp_path: Path, flags: str) -> None:
    words = ["--model-name", "m", "--version", "1.0", *flags.split()]
    assert_like_theirs(tmp_path, words)


SHORTENED = [
    "--model-n m --vers 1.0 --hand h.py --extra-file a.txt --ser w.pt --model-f m.py --req req.txt --con cfg.yaml",
    "--model-n=m --v=1.0 --ha=h --extra=x --archive=tgz --r python3",
    "--model m --version 1.0 --handler h.py",
    "--model-name m --version 1.0 --handler h.py --ru python3 --f",
    "--model-name m --version 1.0 --handler h.py --exp . --ex a.txt",
]


@pytest.mark.skipif(REAL is None, reason="torch-model-archiver is not installed")
@pytest.mark.parametrize("flags", SHORTENED)
def test_shortened_options_are_those_of_torch_model_archiver(tmp_path: Path, flags: str) -> None:
    assert_like_theirs(tmp_path, flags.split())


def test_long_options_may_be_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = f"--model-n m --vers 1.0 --hand h.py --extra-file a.txt --export={tmp_path}"
    assert main(["archive", *flags.split()]) == 0
    assert set(content(tmp_path / "m.mar")) == {"h.py", "a.txt", "MAR-INF/MANIFEST.json"}
    with pytest.raises(SystemExit):
        main(["archive", "--model", "m"])
    assert "ambiguous option: --model could match --model-name, --model-file" in capsys.readouterr().err


def assert_like_theirs(tmp_path: Path, words: list[str]) -> None:
    made: list[dict[str, dict[str, bytes | str]]] = []
    codes = []
    for name in ("theirs", "ours"):
        folder = tmp_path / name
        folder.mkdir()
        command = [*words, "--export-path", str(folder)]
        if name == "ours":
            try:
                codes.append(main(["archive", *command]))
            except SystemExit as end:
                codes.append(end.code)
        else:
            codes.append(subprocess.run([str(REAL), *command], capture_output=True, timeout=60).returncode)
        made.append({path.name: content(path) for path in folder.iterdir()})
    assert codes[0] == codes[1]
    assert made[0] == made[1]


def test_the_python_interface_packs_too(tmp_path: Path) -> None:
    config = ModelArchiverConfig("m", "h.py", "1.0", extra_files="a.txt", export_path=str(tmp_path), force=True)
    generate_model_archive(config)
    assert set(content(tmp_path / "m.mar")) == {"h.py", "a.txt", "MAR-INF/MANIFEST.json"}
    with pytest.raises(ConfigError, match="handler not found"):
        generate_model_archive(ModelArchiverConfig(model_name="n", handler="none.py", version="1"))
