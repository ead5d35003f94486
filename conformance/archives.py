"""Builds the model stores: the same archives with torch-model-archiver and with ``zts archive``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "ARCHIVES",
    "MODELS",
    "Archive",
    "build_downloads",
    "build_store",
    "copy_store",
    "make_weights",
    "same_content",
]

MODELS: Final = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive; ``model_file``, ``weights`` and ``extra`` as the archiver's flags of like names."""

    name: str
    handler: str
    version: str = "1.0"
    model_file: str = ""
    weights: str = ""
    extra: tuple[str, ...] = ()
    config: str = ""
    format: str = "default"
    # File in the store, when one name has several versions.
    file: str = ""
    # Long options of the archiver are shortened as far as it takes them.
    shortened: bool = False

    @property
    def target(self) -> str:
        """The archive's name in the store."""
        ending = {"tgz": ".tar.gz", "no-archive": ""}.get(self.format, ".mar")
        return self.file or self.name + ending


_BATCH: Final = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nmaxBatchDelay: 1500\n"
_CONFIG: Final = """minWorkers: 1
maxWorkers: 2
batchSize: 2
maxBatchDelay: 10
responseTimeout: 33
startupTimeout: 44
maxRetryTimeoutInSec: 55
clientTimeoutInMills: 60000
jobQueueSize: 7
deviceType: cpu
handler:
  threshold: 0.5
  names: [a, b]
  nested: {deep: true, empty: null}
"""

ARCHIVES: Final = (
    Archive("kitchen", "kitchen.py"),
    Archive("echo", "echo.py"),
    Archive("function", "function.py"),
    Archive("entry", "function:entry"),
    Archive("streamer", "streamer.py"),
    Archive("counting", "counting.py"),
    Archive("configured", "configured.py", "2.1", extra=("helper_module.py", "extra"), config=_CONFIG),
    Archive("batching", "batching.py", config=_BATCH),
    Archive("brokenimport", "broken_import.py"),
    Archive("brokenload", "broken_load.py", config="fail: runtime\n"),
    Archive("brokenmemory", "broken_load.py", config="fail: memory\n"),
    Archive("brokenvalue", "broken_load.py", config="fail: value\n"),
    Archive("badyaml", "kitchen.py", config="minWorkers: [1\n"),
    Archive("oddyaml", "kitchen.py", config='batchSize: "8"\nmaxBatchDelay: -3\nresponseTimeout: 0\nminWorkers: x\n'),
    Archive("mnist", "mnist_handler.py", model_file="mnist_net.py", weights="mnist.pt", extra=("index_to_name.json",)),
    Archive("script", "script_handler.py", weights="doubler.pt"),
    Archive("base", "base_handler", weights="doubler.pt"),
    Archive("envelope", "envelope.py"),
    Archive("givesup", "broken_import.py", config="minWorkers: 1\nmaxWorkers: 1\nmaxRetryTimeoutInSec: 1\n"),
    Archive("noweights", "base_handler"),
    Archive("tarred", "function.py", format="tgz"),
    Archive("stored", "function.py", format="zip-store"),
    Archive("folder", "function.py", format="no-archive"),
    Archive("slow", "kitchen.py", config="minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 2\n"),
    Archive("hasty", "kitchen.py", config="minWorkers: 1\nmaxWorkers: 1\nclientTimeoutInMills: 700\n"),
    Archive("narrow", "kitchen.py", config="minWorkers: 1\nmaxWorkers: 1\njobQueueSize: 1\n"),
    Archive("ticket", "kitchen.py", config="minWorkers: 1\nmaxWorkers: 1\nuseJobTicket: true\n"),
    Archive("process", "process_state.py"),
    Archive("printing", "printing.py"),
    Archive("processasync", "process_async.py", config="minWorkers: 1\nmaxWorkers: 1\nasyncCommunication: true\n"),
    Archive("short", "function.py", weights="doubler.pt", extra=("helper_module.py", "extra"), shortened=True),
    *(Archive("many", "function.py", version, file=f"many_{version}.mar") for version in ("1.0", "1.2.1", "2")),
)


# Archives whose manifest torch-model-archiver would not write: name → what differs.
MANIFESTS: Final[Mapping[str, Mapping[str, object]]] = {
    "javapython": {"runtime": "PYTHON"},
    "javapython3": {"runtime": "PYTHON3"},
    "oddpython": {"runtime": "Python"},
    "python2": {"runtime": "python2"},
    "nullruntime": {"runtime": None},
    "weird": {"modelName": "weird name-x.y"},
    "newline": {"modelName": "line\nend"},
    "unnamed": {"modelName": ""},
    "spaced": {"modelName": "spaced", "modelVersion": "1 0"},
}


def make_weights(torch_python: str, folder: Path) -> None:
    """Write weights, an image, a label file and a folder of extra files into ``folder``, beside the models."""
    for source in MODELS.glob("*.py"):
        shutil.copy(source, folder)
    (folder / "extra" / "below").mkdir(parents=True)
    (folder / "extra" / "words.txt").write_text("word\n")
    (folder / "extra" / "below" / "deep.txt").write_text("deep\n")
    labels = {str(digit): [f"n{digit}", f"digit {digit}"] for digit in range(10)}
    (folder / "index_to_name.json").write_text(json.dumps(labels))
    subprocess.run([torch_python, str(folder / "make_weights.py"), str(folder)], check=True, timeout=300)


def build_store(archiver: list[str], parts: Path, store: Path) -> None:
    """Pack every archive of ``ARCHIVES`` with ``archiver`` (a command's first words) into ``store``."""
    store.mkdir(parents=True)
    for archive in ARCHIVES:
        _pack(archiver, archive, parts, store)
    shutil.copy(parts / "seven.png", store)
    (store / "readme.txt").write_text("no archive\n")
    (store / "corrupt.mar").write_bytes(b"PK\x03\x04 and then nothing")
    with zipfile.ZipFile(store / "nomanifest.mar", "w") as bare:
        bare.write(parts / "function.py", "function.py")
    shutil.copy(store / "function.mar", store / "renamed.mar")
    for name, manifest in MANIFESTS.items():
        _with_manifest(store / "function.mar", store / f"{name}.mar", manifest)
    (store / "page.mar").write_text("<!DOCTYPE html><html><body>sign in</body></html>\n")
    (store / "empty.mar").touch()
    whole = (store / "function.mar").read_bytes()
    (store / "half.mar").write_bytes(whole[: len(whole) // 2])


def build_downloads(store: Path, downloads: Path) -> None:
    """Put archives under names that no store holds into ``downloads``, for URLs."""
    downloads.mkdir()
    for name in ("remote", "local", "refused"):
        shutil.copy(store / "function.mar", downloads / f"{name}.mar")
    shutil.copy(store / "function.mar", downloads / "kitchen.mar")
    shutil.copytree(store / "folder", downloads / "outside")
    (downloads / "text.mar").write_text("no archive\n")
    (downloads / "page.mar").write_text("<!DOCTYPE html><html><body>sign in</body></html>\n")
    (downloads / "bare" / "package").mkdir(parents=True)
    (downloads / "bare" / "package" / "__init__.py").touch()
    with zipfile.ZipFile(store / "function.mar") as archive:
        (downloads / "bare" / "package" / "module.py").write_bytes(archive.read("function.py"))
        (downloads / "bare" / "weights.pt").touch()


def _with_manifest(source: Path, target: Path, change: Mapping[str, object]) -> None:
    """Copy an archive with other values in its manifest; keys of ``model`` begin with that word."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "MAR-INF/MANIFEST.json":
                manifest = json.loads(data)
                for key, value in change.items():
                    (manifest["model"] if key.startswith("model") else manifest)[key] = value
                data = json.dumps(manifest).encode()
            new.writestr(name, data)


def copy_store(store: Path, target: Path, only: tuple[str, ...]) -> None:
    """Copy a store, or the named parts of it, so that no server sees what another one does to it."""
    target.mkdir()
    for one in store.iterdir():
        if only and one.name not in only:
            continue
        if one.is_dir():
            shutil.copytree(one, target / one.name)
        else:
            shutil.copy(one, target)


_SHORT_OPTIONS: Final = {
    "--model-name": "--model-n",
    "--version": "--vers",
    "--handler": "--hand",
    "--archive-format": "--archive",
    "--export-path": "--export",
    "--force": "--fo",
}


def _pack(archiver: list[str], archive: Archive, parts: Path, store: Path) -> None:
    handler = archive.handler if archive.handler == "base_handler" else str(parts / archive.handler)
    command = [*archiver, "--model-name", archive.name, "--version", archive.version, "--handler", handler]
    command += ["--archive-format", archive.format, "--export-path", str(store), "--force"]
    if archive.shortened:
        command = [_SHORT_OPTIONS.get(word, word) for word in command]
    if archive.model_file:
        command += ["--model-file", str(parts / archive.model_file)]
    if archive.weights:
        command += ["--seri" if archive.shortened else "--serialized-file", str(parts / archive.weights)]
    if archive.extra:
        option = "--extra-file" if archive.shortened else "--extra-files"
        command += [option, ",".join(str(parts / name) for name in archive.extra)]
    if archive.config:
        (parts / "model-config.yaml").write_text(archive.config)
        command += ["--config-file", str(parts / "model-config.yaml")]
    # torch-model-archiver works in, and removes, a folder of the model's name beside other temporary files.
    own = parts / "archiver"
    own.mkdir(exist_ok=True)
    env = {**os.environ, "TMPDIR": str(own)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    if done.returncode:
        sys.exit(f"cannot pack {archive.name}: {' '.join(command)}\n{done.stdout}{done.stderr}")
    if archive.file:
        (store / f"{archive.name}.mar").rename(store / archive.file)


def same_content(first: Path, second: Path) -> list[str]:
    """Return how two zip archives differ in members (timestamps and order apart); empty when they do not."""
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as two:
        names = set(one.namelist()), set(two.namelist())
        found = [f"only in one of them: {name}" for name in sorted(names[0] ^ names[1])]
        for name in sorted(names[0] & names[1]):
            if name != "MAR-INF/MANIFEST.json" and one.read(name) != two.read(name):
                found.append(f"differs: {name}")
    return found
