"""The broker's sockets as they are opened: whose they are, whom they let in."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from zts.broker.journal import Journal
from zts.broker.sockets import open_sockets
from zts.broker.worker_key import KEY_FILE, read_or_make_key
from zts.errors import ConfigError
from zts.settings import Endpoints

TCP = Endpoints(**dict.fromkeys(("client", "worker", "control", "event"), "tcp://127.0.0.1:*"))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("uids", [(), (os.geteuid(),), (65534,)])
def test_sockets_are_closed_to_others_until_the_node_agent_lets_a_models_user_through(
    folder: Path, uids: tuple[int, ...]
) -> None:
    sockets = open_sockets(Endpoints.in_folder(str(folder)), uids)
    try:
        modes = {name: mode(folder / f"{name}.ipc") for name in ("client", "worker", "control", "event")}
        assert modes == dict.fromkeys(("client", "worker", "control", "event"), 0o600)
    finally:
        sockets.close()


def test_tcp_is_warned_of_and_refused_where_models_have_users(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        open_sockets(TCP).close()
        assert [record.getMessage()[:44] for record in caplog.records] == [
            "every user of this host may connect to the b"
        ]
        with pytest.raises(ConfigError, match="use ipc://PATH for all four addresses"):
            open_sockets(TCP, (65534,))
        assert len(caplog.records) == 1


def test_the_key_is_kept_for_the_next_broker_and_is_nobody_elses(folder: Path) -> None:
    key = read_or_make_key(str(folder))
    assert len(key) == 32 and read_or_make_key(str(folder)) == key
    path = folder / KEY_FILE
    assert mode(path) == 0o600 and os.listdir(folder) == [KEY_FILE]
    path.write_bytes(b"short")
    assert read_or_make_key(str(folder)) not in (key, b"short")
    path.unlink()
    (folder / "elsewhere").write_bytes(b"x" * 32)
    path.symlink_to(folder / "elsewhere")  # nobody's word but a file of ours
    assert read_or_make_key(str(folder)) != b"x" * 32
    assert not path.is_symlink() and (folder / "elsewhere").read_bytes() == b"x" * 32
    assert len(read_or_make_key(str(folder / "missing"))) == 32


def test_the_journal_is_readable_for_its_owner_only(folder: Path) -> None:
    before = os.umask(0)
    try:
        journal = Journal(str(folder))
        journal.path.with_suffix(".new").touch(0o666)
        journal.write({"models": []})
    finally:
        os.umask(before)
    assert mode(journal.path) == 0o600 and journal.read() == {"models": []}
