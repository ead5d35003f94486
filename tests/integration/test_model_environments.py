"""A model's requirements file in a cached folder (TORCHSERVE.md 7.5). The packages are wheels made here: no network."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.handler_archives import job, restored_process, write_archive
from zts.errors import BadRequest
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.workers.handler.loader import load_service
from zts.workers.node import venvs
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


def answer_in_a_process(folder: Path, environment: venvs.Environment) -> str:
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
    assert venvs.find(folder, settings()) is None
    with caplog.at_level(logging.INFO, "zts.node"):
        environment = venvs.ensure(folder, model="m", settings=settings())
    assert environment is not None
    assert environment.python == ""
    assert "model m: installing the packages of requirements.txt" in caplog.text
    assert "pip: Processing ./zts_tiny" in caplog.text
    assert "its packages are ready after" in caplog.text
    assert venvs.find(folder, settings()) == environment
    assert answer_in_a_process(folder, environment).startswith("tiny ")
    # Another copy of the archive asks for the same: nothing is installed, not even without pip.
    monkeypatch.setattr(venvs, "_run", lambda *_: pytest.fail("installed again"))
    shutil.copytree(folder, tmp_path / "b")
    assert venvs.ensure(tmp_path / "b", model="m2", settings=settings()) == environment


def test_another_wheel_of_the_same_name_is_another_environment(tmp_path: Path) -> None:
    one = venvs.ensure(archive(tmp_path / "a"), model="m", settings=settings())
    two = venvs.ensure(archive(tmp_path / "b", word="other"), model="m", settings=settings())
    assert one is not None and two is not None
    assert one.site_dir != two.site_dir
    assert answer_in_a_process(tmp_path / "b", two).startswith("other ")


def test_a_virtual_environment_of_the_models_own_sees_the_servers_packages(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", config="useVenv: true\n")
    environment = venvs.ensure(folder, model="m", settings=settings())
    assert environment is not None
    assert environment.python.endswith("/bin/python")
    word, prefix = answer_in_a_process(folder, environment).split()
    assert word == "tiny"
    assert Path(environment.python).parents[1] == Path(prefix)


def test_nothing_is_installed_unless_the_server_allows_it(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a")
    assert venvs.ensure(folder, model="m", settings=settings(install=False)) is None
    plain = write_archive(tmp_path / "b", {"own.py": HANDLER}, handler="own")
    assert venvs.ensure(plain, model="m", settings=settings()) is None
    assert venvs.ensure(tmp_path, model="m", settings=settings()) is None
    assert not (tmp_path / "cache").exists()


def test_a_failed_installation_has_torchserves_words_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"own.py": HANDLER, "requirements.txt": "zts-no-such-package==1.0\n"}
    folder = write_archive(tmp_path / "a", files, handler="own", requirementsFile="requirements.txt")
    with pytest.raises(BadRequest) as caught:
        venvs.ensure(folder, model="m", settings=settings())
    error = caught.value
    assert (error.http_status, error.type_name) == (400, "ModelException")
    assert error.public_message == "Custom pip package installation failed for model m"
    assert "No matching distribution found for zts-no-such-package==1.0" in caplog.text
    assert venvs.find(folder, settings()) is None


@pytest.mark.parametrize("name", ["gone.txt", "../outside.txt"])
def test_a_requirements_file_must_be_in_the_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.txt").write_text("x\n")
    folder = write_archive(tmp_path / "a", {"own.py": HANDLER}, handler="own", requirementsFile=name)
    with pytest.raises(BadRequest, match="is not in the archive"):
        venvs.ensure(folder, model="m", settings=settings())


def test_a_build_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a")
    first = venvs.ensure(folder, model="m", settings=settings())
    assert first is not None
    Path(first.site_dir, ".zts-ready").unlink()
    Path(first.site_dir, "zts_tiny.py").unlink()
    assert venvs.find(folder, settings()) is None
    assert venvs.ensure(folder, model="m", settings=settings()) == first
    assert Path(first.site_dir, "zts_tiny.py").is_file()


def test_the_models_packages_come_before_the_servers(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "a", {"own.py": HANDLER}, handler="own")
    own = tmp_path / "site"
    own.mkdir()
    (own / "zts_tiny.py").write_text("WORD = 'own'\n")
    service = loaded(str(folder), str(own))
    assert [sys.path[0], sys.path[2]] == [str(folder), str(own)]
    assert bytes(service.run([job(1, b"x")])[0].body).startswith(b"own ")
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(own)


# Each is a way to name something of the archive; what it names then changes.
NAMED = {
    "a folder": ("./pkg", "pkg/setup.py"),
    "a folder with extras": ("./pkg[x]", "pkg/sub/more.py"),
    "editable": ("-e ./pkg", "pkg/setup.py"),
    "the archive itself": (".", "handler.py"),
    "a wheel": ("./deep.whl", "deep.whl"),
    "by URL": ("x @ file:./deep.whl", "deep.whl"),
    "by URL with a hash": ("x@file:deep.whl#sha256=0", "deep.whl"),
    "quoted": ("'./deep.whl' ; python_version > '3'", "deep.whl"),
    "further requirements": ("-r more.txt", "more.txt"),
    "further requirements, glued": ("-rmore.txt", "more.txt"),
    "further requirements, long": ("--requirement=more.txt", "more.txt"),
    "nested": ("-r outer.txt", "deep.whl"),
    "constraints": ("-c more.txt", "more.txt"),
    "a folder of wheels": ("--find-links wheels\nzts_tiny", "wheels/a.whl"),
    "a folder of wheels, short": ("-f wheels\nzts_tiny", "wheels/a.whl"),
    "continued": ("-r \\\nmore.txt", "more.txt"),
    "by a variable": ("-r ${PIP_MORE}", "more.txt"),
    "percent-encoded": ("x @ file:./d%65ep.whl", "deep.whl"),
}


@pytest.mark.parametrize("how", NAMED)
def test_whatever_the_requirements_name_is_part_of_the_key(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, changed = NAMED[how]
    monkeypatch.setenv("PIP_MORE", "more.txt")
    folder = write_archive(
        tmp_path / "a",
        {
            "handler.py": "",
            "requirements.txt": f"{line}\n",
            "pkg/setup.py": "1",
            "pkg/sub/more.py": "1",
            "deep.whl": "1",
            "more.txt": "one==1\n",
            "outer.txt": "-r inner.txt\n",
            "inner.txt": "./deep.whl\n",
            "wheels/a.whl": "1",
        },
        handler="handler",
        requirementsFile="requirements.txt",
    )
    before = key_of(folder)
    assert key_of(folder) == before
    (folder / changed).write_text("other==2\n")
    assert key_of(folder) != before


@pytest.mark.parametrize("line", ["-r odd.txt", "./odd.whl", "x @ file:/dev/zero", "-c /dev/zero"])
def test_requirements_that_name_no_file_hold_nothing_up(tmp_path: Path, line: str) -> None:
    files = {"handler.py": "", "requirements.txt": f"{line}\n"}
    folder = write_archive(tmp_path / "a", files, handler="handler", requirementsFile="requirements.txt")
    for name in ("odd.txt", "odd.whl"):
        os.mkfifo(folder / name)
    with pytest.raises(BadRequest, match="neither a file nor a folder"):
        key_of(folder)
    (folder / "requirements.txt").write_text("-c /dev/null\n")
    assert key_of(folder)


def key_of(folder: Path, **values: Any) -> Path:
    plan = venvs._plan(folder, replace(settings(), **values))
    assert plan is not None
    return plan.folder


def test_settings_of_pip_are_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = archive(tmp_path / "a")
    before = key_of(folder)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    assert key_of(folder) != before


def test_equal_requirements_of_two_archives_share_an_environment(tmp_path: Path) -> None:
    assert key_of(archive(tmp_path / "a")) == key_of(archive(tmp_path / "b"))


@pytest.mark.parametrize("name", ["venv.py", "pip.py", "ensurepip.py", "sitecustomize.py", "usercustomize.py", "re.py"])
def test_building_runs_no_module_of_the_archive(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = archive(tmp_path / "a", config="useVenv: true\n")
    witness = tmp_path / "witness"
    (folder / name).write_text(f"open({str(witness)!r}, 'w').close()\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    assert venvs.ensure(folder, model="m", settings=settings()) is not None
    assert not witness.exists()


def test_a_build_sees_no_secret_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "PATH": "/bin",
        "HOME": "/root",
        "PIP_INDEX_URL": "x",
        "https_proxy": "y",
        "LC_ALL": "C",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "ZTS_KEY": "secret",
        "PYTHONPATH": "/archive",
        "LD_PRELOAD": "/archive/evil.so",
        "DB_PASSWORD": "secret",
    }
    passed = venvs.build_environment(given, "HOM.")
    assert sorted(passed) == ["LC_ALL", "PATH", "PIP_INDEX_URL", "https_proxy"]


@pytest.mark.parametrize("config", ["", "useVenv: true\n"])
def test_an_operator_can_refuse_environments(tmp_path: Path, config: str) -> None:
    folder = archive(tmp_path / "a", config=config)
    with pytest.raises(BadRequest, match="zts_requirements=refuse"):
        venvs.ensure(folder, model="m", settings=replace(settings(), requirements="refuse"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "line",
    [
        "./pkg",
        "-e .",
        "--index-url http://127.0.0.1:1/",
        "x @ file:./deep.whl",
        "git+https://example.org/x",
        "x==1 --config-settings=a=b",
        "/abs/path.whl",
        "-r more.txt",
        "--no-binary :all:",
    ],
)
def test_wheels_of_named_projects_only(tmp_path: Path, line: str) -> None:
    folder = write_archive(
        tmp_path / "a",
        {"handler.py": "", "requirements.txt": f"fine==1.0\n{line}\n", "more.txt": ""},
        handler="handler",
        requirementsFile="requirements.txt",
    )
    with pytest.raises(BadRequest, match="is no plain requirement"):
        key_of(folder, requirements="wheels")


def test_plain_requirements_pass_where_only_wheels_are_installed(tmp_path: Path) -> None:
    lines = ["a", "b==1.0", "c[x,y]>=2,<3", "d ~= 1.4.2", 'e>1; python_version < "3.8"', "f==1 --hash=sha256:00", "# g"]
    folder = write_archive(
        tmp_path / "a",
        {"handler.py": "", "requirements.txt": "\n".join(lines)},
        handler="handler",
        requirementsFile="requirements.txt",
    )
    assert key_of(folder, requirements="wheels") != key_of(folder)
