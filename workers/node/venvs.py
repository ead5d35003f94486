"""Packages that a model asks for: its requirements file, installed once into a cached folder (TORCHSERVE.md 7.5).

Acts only where the configuration says ``install_py_dep_per_model=true``, or the model ``useVenv: true``. A folder is
keyed by all that the installation depends on (``requirements.py``); models that ask for the same share it, and later
starts need no network. Layer 3: disk, processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import platform
import re
import select
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zts.archive import read_config_file, read_manifest
from zts.clock import monotonic
from zts.errors import BadRequest
from zts.ownership import check_ours
from zts.regular_file import open_to_append
from zts.settings import REGISTRATION_LIMIT_S, Settings
from zts.workers.node.requirements import add_content, check_wheels_only

__all__ = ["Environment", "build_environment", "cache_folder", "ensure", "find"]

_log = logging.getLogger("zts.node")

# Written last, so that a folder without it is a build that was cut off.
_READY: Final = ".zts-ready"
# Compiling some packages takes an hour.
_BUILD_S: Final = REGISTRATION_LIMIT_S
_KEPT_LINES: Final = 5
_MODEL_ERROR: Final = "ModelException"
_LOCK_RETRY_S: Final = 0.1
# A build takes cores and memory: two at a time.
_building: Final = threading.Semaphore(2)
# What a build gets of the server's environment: what compilers, pip and its network need, and no key of anything else.
_PASSED_ON: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|TERM|XDG_\w+|PIP_\w+|(?i:(https?|ftp|all|no)_proxy)"
    r"|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|CC|CXX|CPP|LD|AR|[A-Z]+FLAGS|LD_LIBRARY_PATH|LIBRARY_PATH|CPATH"
    r"|PKG_CONFIG_PATH|CMAKE_\w+|MAX_JOBS|CUDA_HOME|CUDA_PATH|TORCH_CUDA_ARCH_LIST|SOURCE_DATE_EPOCH|SETUPTOOLS_\w+"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """A model's packages, ready to use.

    Attributes:
        site_dir: Folder with the packages, to be put on the worker's path.
        python: The interpreter of the model's virtual environment; ``""``: the server's own.
    """

    site_dir: str
    python: str = ""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be built, and where."""

    folder: Path
    model_dir: Path
    requirements: Path | None
    is_venv: bool
    environ: Mapping[str, str]
    wheels_only: bool = False

    def environment(self) -> Environment:
        if not self.is_venv:
            return Environment(str(self.folder))
        paths = sysconfig.get_paths("venv", vars={"base": str(self.folder), "platbase": str(self.folder)})
        return Environment(paths["purelib"], str(Path(paths["scripts"], "python")))

    def is_ready(self) -> bool:
        return (self.folder / _READY).is_file()


def cache_folder() -> Path:
    """Return the folder of all environments: ``ZTS_ENVIRONMENT_DIR``, else one in the user's cache folder."""
    named = os.environ.get("ZTS_ENVIRONMENT_DIR")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache")
    return Path(cache, "zts", "environments")


def ensure(model_dir: Path, *, model: str, settings: Settings) -> Environment | None:
    """Build what the unpacked archive asks for, unless it is there already; None if it asks for nothing.

    Takes as long as pip does; its lines go to the log as they come.

    Args:
        model_dir: The unpacked archive.
        model: For messages.
        settings: ``install_py_dep_per_model``, ``zts_requirements``, ``blacklist_env_vars``.

    Raises:
        BadRequest: If it cannot be built (TorchServe's status, type and text).
        BadArchive: If manifest or configuration are unusable.
    """
    plan = _plan(model_dir, settings)
    if plan is None:
        return None
    if not plan.is_ready():
        with _locked(plan.folder):
            if not plan.is_ready():
                with _building:
                    _build(plan, model)
    else:
        _log.info("model %s: its packages are there already: %s", model, plan.folder)
    return plan.environment()


def find(model_dir: Path, settings: Settings) -> Environment | None:
    """Return what ``ensure`` has built for this archive; None if there is nothing."""
    plan = _plan(model_dir, settings)
    return plan.environment() if plan is not None and plan.is_ready() else None


def _plan(model_dir: Path, settings: Settings) -> _Plan | None:
    manifest = read_manifest(model_dir)
    config: dict[str, Any] = {}
    if manifest is not None and manifest.config_file:
        config = read_config_file(model_dir, manifest.config_file)
    is_venv = config.get("useVenv") is True
    named = manifest.requirements_file if manifest is not None and settings.install_py_dep_per_model else ""
    requirements = model_dir / named if named else None
    if requirements is not None and not (requirements.is_file() and _is_inside(requirements, model_dir)):
        raise BadRequest(f"the requirements file {named!r} that the manifest names is not in the archive")
    if settings.requirements == "refuse" and (requirements is not None or is_venv):
        raise BadRequest("this server makes no environments for models (zts_requirements=refuse)")
    if requirements is None and not is_venv:
        return None
    wheels_only = settings.requirements == "wheels"
    environ = build_environment(os.environ, settings.blacklist_env_vars)
    interpreter = (sys.version, sys.platform, platform.machine(), sys.prefix if is_venv else "")
    key = hashlib.sha256(repr((*interpreter, is_venv, wheels_only)).encode())
    if requirements is not None:
        if wheels_only:
            check_wheels_only(requirements)
        add_content(key, requirements, model_dir, environ)
    folder = cache_folder() / key.hexdigest()[:32]
    check_ours(folder.parent, "folder of environments", "name another one with ZTS_ENVIRONMENT_DIR")
    return _Plan(folder, model_dir, requirements, is_venv, environ, wheels_only)


def build_environment(environ: Mapping[str, str], blacklist: str) -> dict[str, str]:
    """Return the variables that a build sees.

    Args:
        environ: The server's.
        blacklist: ``blacklist_env_vars``; names that match it as a whole are left out, too.
    """
    hidden = re.compile(blacklist) if blacklist else None
    return {
        name: value
        for name, value in environ.items()
        if _PASSED_ON.fullmatch(name) and not (hidden is not None and hidden.fullmatch(name))
    }


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time build ``folder``.

    Raises:
        BadRequest: If another one does not end within the time that a build may take.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = monotonic() + _BUILD_S
    lock = open_to_append(folder.with_suffix(".lock"), 0o600)  # for this user only: others could hold it for ever
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > deadline:
                    raise BadRequest(f"another process builds {folder} and does not end") from None
                select.select([], [], [], _LOCK_RETRY_S)
        yield
    finally:
        os.close(lock)


def _build(plan: _Plan, model: str) -> None:
    started = monotonic()
    shutil.rmtree(plan.folder, ignore_errors=True)  # what a build that was cut off left
    try:
        if plan.is_venv:
            _build_venv(plan, model)
        if plan.requirements is not None:
            _log.info("model %s: installing the packages of %s", model, plan.requirements.name)
            _install(plan, model)
        plan.folder.mkdir(exist_ok=True)
        (plan.folder / _READY).touch()
    except BaseException:
        shutil.rmtree(plan.folder, ignore_errors=True)
        raise
    _log.info("model %s: its packages are ready after %.1f s: %s", model, monotonic() - started, plan.folder)


def _build_venv(plan: _Plan, model: str) -> None:
    """Make a virtual environment that also sees the server's own packages."""
    _log.info("model %s: making its virtual environment", model)
    # Isolated: an archive that has a venv.py or pip.py of its own, which is where we stand, must not run it here.
    command = [sys.executable, "-I", "-m", "venv", "--without-pip", "--system-site-packages", str(plan.folder)]
    code, lines = _run(command, plan, model)
    if code != 0:
        raise _failure(f"Virtual environment creation failed for model {model}", lines)
    # The server may live in a virtual environment itself, whose packages --system-site-packages does not mean.
    parents = [path for path in site.getsitepackages() if os.path.isdir(path)]
    import zts

    parents.append(str(Path(zts.__file__).resolve().parents[1]))
    text = "".join(f"import site; site.addsitedir({path!r})\n" for path in parents)
    Path(plan.environment().site_dir, "_zts_server.pth").write_text(text)


def _install(plan: _Plan, model: str) -> None:
    pip = [sys.executable, "-I", "-m", "pip"]
    install = ["install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "-U"]
    if plan.wheels_only:
        install += ["--only-binary", ":all:"]
    if plan.is_venv:
        command = [*pip, "--python", plan.environment().python, *install, "--upgrade-strategy", "only-if-needed"]
    else:
        command = [*pip, *install, "-t", str(plan.folder)]
    # Paths in a requirements file are relative to the working directory: the archive's own wheels are found.
    code, lines = _run([*command, "-r", str(plan.requirements)], plan, model)
    if code != 0:
        raise _failure(f"Custom pip package installation failed for model {model}", lines)


def _run(command: list[str], plan: _Plan, model: str) -> tuple[int, list[str]]:
    """Run a command, log what it prints line by line, and return its exit code and its last lines."""
    kept: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=plan.model_dir,
        env=plan.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    # With all that it has started: one of those could keep our end of the pipe open for ever.
    limit = threading.Timer(_BUILD_S, _kill_group, [process.pid])
    limit.start()
    try:
        with process.stdout:
            for line in process.stdout:
                _log.info("model %s: pip: %s", model, line.rstrip())
                kept = [*kept, line.strip()][-_KEPT_LINES:]
        code = process.wait()
        if limit.finished.is_set():
            kept.append(f"ERROR: stopped after {_BUILD_S:g} s")
    finally:
        limit.cancel()
    return code, kept


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _failure(text: str, lines: list[str]) -> BadRequest:
    errors = [line for line in lines if line.upper().startswith("ERROR")]
    cause = (errors or lines or [""])[-1]
    _log.error("%s: %s", text, cause)
    return BadRequest(text, type_name=_MODEL_ERROR)
