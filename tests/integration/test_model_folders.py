"""Unpacked archives: a folder for each registration, nothing left of what is gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zts.archive import clone
from zts.errors import BadArchive
from zts.settings import Endpoints, Settings
from zts.workers.node import model_folders
from zts.workers.node.model_folders import ModelFolders
from zts.workers.node.store import ModelStore, Prepared

MANIFEST = '{"model": {"modelName": "m", "modelVersion": "1.0", "handler": "h.py"}}'
GOOD = {"h.py": "def handle(data, context): return data", "MAR-INF/MANIFEST.json": MANIFEST, "sub/deep/empty": ""}


def archive(path: Path, members: dict[str, str] = GOOD) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["unpacked", "cloned"])
def models_dir(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder; ``cloned``: on a file system that can, as far as everybody but the kernel is concerned."""
    if request.param == "cloned":
        monkeypatch.setattr(model_folders, "can_clone", lambda folder: True)
        monkeypatch.setattr(model_folders, "clone_tree", shutil.copytree)
    else:
        monkeypatch.setattr(model_folders, "can_clone", lambda folder: False)
    return tmp_path / "run" / "models"


def registrations(models_dir: Path) -> list[Path]:
    return [path for path in models_dir.glob("*/*") if path.parent.name != "cache"]


def test_what_a_handler_writes_is_seen_by_its_own_registration_only(models_dir: Path, tmp_path: Path) -> None:
    path = archive(tmp_path / "m.mar")
    folders = ModelFolders(models_dir)
    one, two = folders.make(path), folders.make(path)
    assert (content(one), content(two)) == (GOOD, GOOD)
    with (one / "h.py").open("r+") as file:  # in place: no hard link would survive this
        file.write("XXX")
    (one / "sub" / "deep" / "empty").unlink()
    assert content(two) == GOOD
    assert content(folders.make(path)) == GOOD
    folders.close()
    assert registrations(models_dir) == []


def test_a_start_finds_nothing_that_an_earlier_one_wrote(models_dir: Path, tmp_path: Path) -> None:
    path = archive(tmp_path / "m.mar")
    for _ in range(3):
        folders = ModelFolders(models_dir)
        folders.sweep()
        folder = folders.make(path)
        assert content(folder) == GOOD
        (folder / "h.py").write_text("changed")
        folders.close()


def test_a_changed_archive_is_unpacked_anew(models_dir: Path, tmp_path: Path) -> None:
    path = archive(tmp_path / "m.mar")
    folders = ModelFolders(models_dir)
    folders.make(path)
    archive(path, {**GOOD, "h.py": "new and longer than before"})
    assert (folders.make(path) / "h.py").read_text() == "new and longer than before"
    folders.close()


def test_a_killed_agents_folders_are_removed_by_the_next_but_not_those_of_one_that_lives(
    models_dir: Path, tmp_path: Path
) -> None:
    path = archive(tmp_path / "m.mar")
    dead, alive = ModelFolders(models_dir), ModelFolders(models_dir)
    of_dead, of_alive = dead.make(path), alive.make(path)
    (models_dir / "m-0123456789abcdef").mkdir()  # of a version that knew no locks
    os.close(dead._lock_fd)  # as the kernel does
    third = ModelFolders(models_dir)
    third.sweep()
    assert not of_dead.parent.exists() and content(of_alive) == GOOD
    assert len([path for path in models_dir.iterdir() if path.name != "cache"]) == 4  # two folders with their locks
    alive.close()
    third.close()
    assert [path.name for path in models_dir.iterdir() if path.name != "cache"] == []


def test_read_only_folders_that_a_handler_made_go_too(models_dir: Path, tmp_path: Path) -> None:
    folders = ModelFolders(models_dir)
    folder = folders.make(archive(tmp_path / "m.mar"))
    (folder / "locked" / "in").mkdir(parents=True)
    (folder / "locked" / "in" / "file").touch()
    (folder / "locked" / "in").chmod(0o500)
    (folder / "locked").chmod(0o500)
    folders.remove(folder)
    assert registrations(models_dir) == []
    folders.close()


def test_a_bad_archive_leaves_nothing(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mar").write_text("no archive")
    folders = ModelFolders(models_dir)
    for name in ("bad.mar", "none.mar"):
        with pytest.raises(BadArchive):
            folders.make(tmp_path / name)
    assert registrations(models_dir) == []
    folders.close()
    assert list(models_dir.rglob("*.origin")) == []


def test_a_folder_is_served_in_place_by_a_link_and_never_removed(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "h.py").touch()
    folders = ModelFolders(models_dir)
    one, two = folders.make(tmp_path / "model"), folders.make(tmp_path / "model")
    assert one.resolve() == two.resolve() == tmp_path / "model"
    # Its own name can be a package's: what else lies beside the folder is not on the way.
    assert [path.name for path in one.parent.iterdir()] == ["model"]
    folders.remove(one)
    assert not one.parent.exists()
    folders.close()
    assert (tmp_path / "model" / "h.py").exists()


def test_an_only_subfolder_stands_for_its_folder(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model" / "package").mkdir(parents=True)
    (tmp_path / "model" / "package" / "module.py").touch()
    folders = ModelFolders(models_dir)
    link = folders.make(tmp_path / "model")
    assert (link.name, link.resolve()) == ("package", tmp_path / "model" / "package")
    folders.close()


def test_an_archive_with_one_folder_in_it_is_removed_whole(models_dir: Path, tmp_path: Path) -> None:
    folders = ModelFolders(models_dir)
    folder = folders.make(archive(tmp_path / "m.mar", {f"only/{name}": text for name, text in GOOD.items()}))
    assert content(folder) == GOOD
    folders.remove(folder)
    assert registrations(models_dir) == []
    folders.close()


# ---------------------------------------------------------------- the cache


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[Path]]]:
    """Return the models folder of a file system that can clone, and what was unpacked so far."""
    unpacked: list[Path] = []
    unpack = model_folders.unpack

    def noted(path: Path, target: Path, **limits: int) -> Path:
        unpacked.append(path)
        return unpack(path, target, **limits)

    monkeypatch.setattr(model_folders, "can_clone", lambda folder: True)
    monkeypatch.setattr(model_folders, "clone_tree", shutil.copytree)
    monkeypatch.setattr(model_folders, "unpack", noted)
    yield tmp_path / "models", unpacked


def test_an_archive_is_unpacked_once_for_all_its_registrations_and_the_next_start(
    cached: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    models_dir, unpacked = cached
    path = archive(tmp_path / "m.mar")
    folders = ModelFolders(models_dir)
    threads = [threading.Thread(target=folders.make, args=(path,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registrations(models_dir)) == 6
    folders.close()
    folders = ModelFolders(models_dir)
    folders.sweep()
    folders.make(path)
    folders.close()
    assert unpacked == [path]


@pytest.mark.parametrize("what", ["nothing", "size", "write time", "change time", "file", "path", "version"])
def test_what_was_unpacked_stands_for_this_very_archive_only(
    cached: tuple[Path, list[Path]], tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models_dir, unpacked = cached
    path = archive(tmp_path / "m.mar")
    folders = ModelFolders(models_dir)
    folders.make(path)
    before = path.stat()
    if what == "size":
        archive(path, {**GOOD, "more": ""})
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif what == "write time":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif what == "change time":  # rewritten in place, with the time set back
        wait_for_another_time(tmp_path, before.st_ctime_ns)
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif what == "file":
        shutil.copy2(path, tmp_path / "new.mar")
        os.replace(tmp_path / "new.mar", path)
    elif what == "path":
        path = path.rename(tmp_path / "n.mar")
    elif what == "version":
        monkeypatch.setattr(model_folders, "__version__", "another")
    folders.make(path)
    folders.close()
    assert len(unpacked) == (1 if what == "nothing" else 2)


def wait_for_another_time(folder: Path, known_ns: int) -> None:
    """Return when the file system's clock, which ticks coarsely, shows another time."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        (folder / "clock").write_text("x")
        if (folder / "clock").stat().st_ctime_ns != known_ns:
            return
    raise AssertionError("the file system's clock stands still")


@pytest.mark.parametrize("end", ["unregistered", "not registered again", "archive gone", "archive changed"])
def test_the_cache_holds_only_archives_that_are_in_use(
    cached: tuple[Path, list[Path]], tmp_path: Path, end: str
) -> None:
    models_dir, _ = cached
    path = archive(tmp_path / "m.mar")
    folders = ModelFolders(models_dir)
    folder, other = folders.make(path), folders.make(path)
    folders.remove(folder)
    assert len(list((models_dir / "cache").iterdir())) == 2
    if end == "unregistered":
        folders.remove(other)
    else:
        folders.close()
        if end == "archive gone":
            path.unlink()
        elif end == "archive changed":
            archive(path, {**GOOD, "more": "x"})
        folders = ModelFolders(models_dir)
        folders.sweep()
        if end == "not registered again":
            folders.close()
    assert list((models_dir / "cache").iterdir()) == []


def test_files_are_cloned_with_their_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def share(target: int, request: int, source: int) -> None:
        assert request == 0x40049409
        os.write(target, os.read(source, 1 << 20))

    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "run.sh").write_text("#!/bin/sh")
    (source / "a" / "b" / "run.sh").chmod(0o755)
    (source / "empty").touch(0o600)
    monkeypatch.setattr(fcntl, "ioctl", share)
    clone.clone_tree(source, tmp_path / "target")
    assert content(tmp_path / "target") == content(source)
    assert (tmp_path / "target" / "a" / "b" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "target" / "empty").stat().st_mode & 0o777 == 0o600


def test_real_clones_are_independent(tmp_path: Path) -> None:
    if not clone.can_clone(tmp_path):
        pytest.skip("the file system of the temporary folder has no reflinks (btrfs and XFS have them)")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"x" * 100_000)
    clone.clone_tree(tmp_path / "source", tmp_path / "target")
    with (tmp_path / "target" / "file").open("r+b") as file:
        file.write(b"changed")
    assert (tmp_path / "source" / "file").read_bytes() == b"x" * 100_000
    assert (tmp_path / "target" / "file").read_bytes() == b"changed" + b"x" * 99_993


# ---------------------------------------------------------------- in the store


@pytest.fixture
def store(models_dir: Path, tmp_path: Path) -> Iterator[tuple[ModelStore, Callable[[], Prepared]]]:
    woken = threading.Semaphore(0)
    runtime_dir = str(models_dir.parent)
    (tmp_path / "store").mkdir()
    archive(tmp_path / "store" / "m.mar")
    settings = Settings(
        runtime_dir=runtime_dir, endpoints=Endpoints.in_folder(runtime_dir), model_store=str(tmp_path / "store")
    )
    models = ModelStore(settings, gpu_count=0, wake=woken.release)
    kept: list[Prepared] = []

    def next_done() -> Prepared:
        while not kept:
            assert woken.acquire(timeout=20)
            kept.extend(models.take())
        return kept.pop(0)

    yield models, next_done
    models.close()


def test_each_registration_of_an_archive_has_its_own_files_and_a_restart_finds_them_changed(
    store: tuple[ModelStore, Callable[[], Prepared]],
) -> None:
    models, done = store
    dirs = {}
    for name in ("c1", "c2"):
        models.prepare(name, {"url": "m.mar", "model_name": name})
        prepared = done()
        assert prepared.spec is not None
        dirs[name] = (Path(prepared.model_dir), prepared.spec)
    (dirs["c1"][0] / "state.txt").write_text("c1")
    (dirs["c1"][0] / "h.py").unlink()
    assert content(dirs["c2"][0]) == GOOD
    models.fetch("again", dirs["c1"][1])
    again = done()
    assert (again.error, again.model_dir) == (None, str(dirs["c1"][0]))
    assert (Path(again.model_dir) / "state.txt").read_text() == "c1"
    # What is lost is made anew.
    shutil.rmtree(dirs["c1"][0])
    models.fetch("again", dirs["c1"][1])
    assert content(Path(done().model_dir)) == GOOD


def test_files_of_a_registration_that_ended_while_they_were_fetched_are_not_kept(
    store: tuple[ModelStore, Callable[[], Prepared]], models_dir: Path
) -> None:
    models, done = store
    models.prepare("t", {"url": "m.mar"})
    spec = done().spec
    assert spec is not None
    models.remove(spec.files_id)
    held, go_on = threading.Event(), threading.Event()
    make = models._folders.make

    def slowly(path: Path, **limits: int) -> Path:
        folder = make(path, **limits)
        held.set()
        assert go_on.wait(20)
        return folder

    models._folders.make = slowly  # type: ignore[method-assign]
    models.fetch("late", spec)
    assert held.wait(20)
    models.remove(spec.files_id)
    go_on.set()
    error = done().error
    assert error is not None and error.http_status == 404
    deadline = time.monotonic() + 20
    while registrations(models_dir):  # the first one's go in a thread
        assert time.monotonic() < deadline
        time.sleep(0.01)
