"""What another local user prepared under the name of an instance's folder is neither obeyed nor used."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zts.client.addresses import default_endpoints
from zts.config.resolve import control_endpoint
from zts.errors import ConfigError
from zts.ownership import check_ours, is_our_file, make_private_folder
from zts.supervisor.instance import Instance, find_instance

STRANGER = 65_000
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder as the system's temporary one: all may write, with the sticky bit."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    yield folder


def of_stranger(path: Path) -> None:
    path.mkdir(parents=True)
    os.chown(path, STRANGER, STRANGER)


def link_of_stranger(path: Path) -> None:
    target = path.with_name("target")
    target.mkdir()
    path.symlink_to(target)
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def below_stranger(path: Path) -> None:
    of_stranger(path.parent / "theirs")
    (path.parent / "theirs" / "run").mkdir()
    path.symlink_to(path.parent / "theirs" / "run")


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def a_file(path: Path) -> None:
    path.write_text("")


BAD: list[tuple[Callable[[Path], None], str]] = [
    (of_stranger, "belongs to another user"),
    (link_of_stranger, "link of another user"),
    (below_stranger, "belongs to another user"),
    (open_to_all, "other users may write"),
    (a_file, "no folder"),
]


@needs_root
@pytest.mark.parametrize(("make", "why"), BAD, ids=[make.__name__ for make, _ in BAD])
def test_a_folder_that_others_can_have_made_is_refused_by_all_who_look_for_it(
    place: Path, make: Callable[[Path], None], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "zts"
    make(folder)
    monkeypatch.setenv("ZTS_RUNTIME_DIR", str(folder))
    import argparse

    users: list[Callable[[], object]] = [
        lambda: check_ours(folder),
        lambda: make_private_folder(folder),
        lambda: Instance(folder).prepare(),
        lambda: find_instance(None, None, os.environ),
        lambda: find_instance(str(folder), None, {}),
        lambda: default_endpoints(),
        lambda: default_endpoints(runtime_dir=str(folder)),
        lambda: control_endpoint(argparse.Namespace(), os.environ),
    ]
    for user in users:
        with pytest.raises(ConfigError, match=f"{why}.*--runtime-dir"):
            user()


@needs_root
@pytest.mark.parametrize(
    "command",
    [["stop"], ["status"], ["models", "list"], ["restart"], ["predict", "m", __file__], ["broker"], ["node"], ["http"]],
)
def test_no_command_uses_the_folder_of_another_user(place: Path, command: list[str]) -> None:
    folder = place / "zts"
    of_stranger(folder)
    precious = place / "precious"
    precious.write_text("x")
    (folder / "key_file_of.json").write_text(f'{{"path": "{precious}"}}')
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "control.ipc"))
        listening.listen()
        listening.setblocking(False)
        environ = {**os.environ, "ZTS_RUNTIME_DIR": str(folder)}
        run = subprocess.run(
            [sys.executable, "-m", "zts", *command], env=environ, capture_output=True, text=True, timeout=60
        )
        assert run.returncode != 0
        assert "belongs to another user" in run.stderr
        assert "Traceback" not in run.stderr
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert precious.exists()


def test_a_folder_of_ours_is_made_private_and_found(place: Path) -> None:
    folder = place / "a" / "zts"
    check_ours(folder)  # it is not there
    make_private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    link = place / "link"
    link.symlink_to(Path("a") / ".." / "a" / "zts")
    check_ours(link)
    find_instance(str(link), None, {})
    (folder / "file").write_text("")
    (folder / "alias").symlink_to(folder / "file")
    assert is_our_file(folder / "file")
    assert not is_our_file(folder / "alias")
    assert not is_our_file(folder / "missing")


def test_a_circle_of_links_is_an_error_not_a_hang(place: Path) -> None:
    (place / "one").symlink_to(place / "two")
    (place / "two").symlink_to(place / "one")
    with pytest.raises(ConfigError):
        check_ours(place / "one")


@needs_root
def test_nothing_is_made_through_a_link_of_another_user(place: Path) -> None:
    link_of_stranger(place / "zts-0")
    with pytest.raises(ConfigError, match="is a link of another user"):
        make_private_folder(place / "zts-0" / "default")
    assert list((place / "target").iterdir()) == []


def test_a_way_that_all_may_change_is_refused(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    (place / "open" / "zts").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="may replace what is in"):
        check_ours(place / "open" / "zts")
