"""A model's requirements file in a cached folder (TORCHSERVE.md 7.5). The packages are wheels made here: no network."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.handler_archives import job, restored_process, write_archive
from zts.errors import BadRequest
from zts.registry import ModelSpec
from zts.settings import Endpoints, Settings
from zts.workers import environments
from zts.workers.loader import load_service
from zts.workers.options import WorkerOptions

pytestmark = [pytest.mark.slow]

HANDLER = """
import sys
def handle(data, context):
    import zts_tiny
    return data and [f"{zts_tiny.WORD} {sys.prefix}"]
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ZTS_ENVIRONMENT_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with restored_process():
        yield


def settings(*, install: bool = True) -> Settings:
    endpoints = Endpoints(client="", worker="", control="", event="")
    return Settings(runtime_dir="", endpoints=endpoints, install_py_dep_per_model=install)


def write_wheel(folder: Path, word: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    name = "zts_tiny-1.0-py3-none-any.whl"
    info = "zts_tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr("zts_tiny.py", f"WORD = {word!r}\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: zts-tiny\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"zts_tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return f"./{name}\n"


def archive(folder: Path, word: str = "tiny", config: str = "") -> Path:
    requirements = write_wheel(folder, word)
    files = {"own.py": HANDLER, "requirements.txt": requirements}
    entries = {"handler": "own", "requirementsFile": "requirements.txt"}
    if config:
        files["model-config.yaml"], entries["configFile"] = config, "model-config.yaml"
    return write_archive(folder, files, **entries)


def answer_in_a_process(folder: Path, environment: environments.Environment) -> str:
    """Return what the handler answers in a process of its own, as a worker's."""
    code = (
        "import sys\nfrom tests.integration.handler_archives import job\n"
        "from tests.integration.test_model_environments import loaded\n"
        f"print(bytes(loaded({str(folder)!r}, {environment.site_dir!r}).run([job(1, b'x')])[0].body).decode())\n"
    )
    root = Path(__file__).parents[2]
    python = environment.python or sys.executable
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, cwd=root, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip().splitlines()[-1]


def loaded(folder: str, site_dir: str) -> Any:
    options = WorkerOptions(
        worker_id="9000",
        epoch=1,
        spec=ModelSpec(name="m", version="1.0"),
        model_dir=folder,
        worker_endpoint="",
        control_endpoint="",
        site_dir=site_dir,
    )
    return load_service(options)


def test_packages_are_installed_once_and_found_by_the_handler(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = archive(tmp_path / "a")
    assert environments.find(folder, settings()) is None
    with caplog.at_level(logging.INFO, "zts.node"):
        environment = environments.ensure(folder, model="m", settings=settings())
    assert environment is not None
    assert environment.python == ""
    assert "model m: installing the packages of requirements.txt" in caplog.text
    assert "pip: Processing ./zts_tiny" in caplog.text
    assert "its packages are ready after" in caplog.text
    assert environments.find(folder, settings()) == environment
    assert answer_in_a_process(folder, environment).startswith("tiny ")
    # Another copy of the archive asks for the same: nothing is installed, not even without pip.
    monkeypatch.setattr(environments, "_run", lambda *_: pytest.fail("installed again"))
    shutil.copytree(folder, tmp_path / "b")
    assert environments.ensure(tmp_path / "b", model="m2", settings=settings()) == environment


def test_another_wheel_of_the_same_name_is_another_environment(tmp_path: Path) -> None:
    one = environments.ensure(archive(tmp_path / "a"), model="m", settings=settings())
    two = environments.ensure(archive(tmp_path / "b", word="other"), model="m", settings=settings())
    assert one is not None and two is not None
    assert one.site_dir != two.site_dir
    assert answer_in_a_process(tmp_path / "b", two).startswith("other ")


def test_a_virtual_environment_of_the_models_own_sees_the_servers_packages(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", config="useVenv: true\n")
    environment = environments.ensure(folder, model="m", settings=settings())
    assert environment is not None
    assert environment.python.endswith("/bin/python")
    word, prefix = answer_in_a_process(folder, environment).split()
    assert word == "tiny"
    assert Path(environment.python).parents[1] == Path(prefix)


def test_nothing_is_installed_unless_the_server_allows_it(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a")
    assert environments.ensure(folder, model="m", settings=settings(install=False)) is None
    plain = write_archive(tmp_path / "b", {"own.py": HANDLER}, handler="own")
    assert environments.ensure(plain, model="m", settings=settings()) is None
    assert environments.ensure(tmp_path, model="m", settings=settings()) is None
    assert not (tmp_path / "cache").exists()


def test_a_failed_installation_has_torchserves_words_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"own.py": HANDLER, "requirements.txt": "zts-no-such-package==1.0\n"}
    folder = write_archive(tmp_path / "a", files, handler="own", requirementsFile="requirements.txt")
    with pytest.raises(BadRequest) as caught:
        environments.ensure(folder, model="m", settings=settings())
    error = caught.value
    assert (error.http_status, error.type_name) == (400, "ModelException")
    assert error.public_message == "Custom pip package installation failed for model m"
    assert "No matching distribution found for zts-no-such-package==1.0" in caplog.text
    assert environments.find(folder, settings()) is None


@pytest.mark.parametrize("name", ["gone.txt", "../outside.txt"])
def test_a_requirements_file_must_be_in_the_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.txt").write_text("x\n")
    folder = write_archive(tmp_path / "a", {"own.py": HANDLER}, handler="own", requirementsFile=name)
    with pytest.raises(BadRequest, match="is not in the archive"):
        environments.ensure(folder, model="m", settings=settings())


def test_a_build_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a")
    first = environments.ensure(folder, model="m", settings=settings())
    assert first is not None
    Path(first.site_dir, ".zts-ready").unlink()
    Path(first.site_dir, "zts_tiny.py").unlink()
    assert environments.find(folder, settings()) is None
    assert environments.ensure(folder, model="m", settings=settings()) == first
    assert Path(first.site_dir, "zts_tiny.py").is_file()


def test_the_models_packages_come_before_the_servers(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "a", {"own.py": HANDLER}, handler="own")
    own = tmp_path / "site"
    own.mkdir()
    (own / "zts_tiny.py").write_text("WORD = 'own'\n")
    service = loaded(str(folder), str(own))
    assert sys.path[:2] == [str(folder), str(own)]
    assert bytes(service.run([job(1, b"x")])[0].body).startswith(b"own ")
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(own)
