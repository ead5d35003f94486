"""Log files: names, folders, forms, and rotation by day."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zts.logs import JsonFormatter, RotatingFileHandler, TextFormatter, setup_logging
from zts.outlet import Outlet
from zts.settings import Endpoints, Settings

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
NAMES = ("zts", "zts.access", "zts.model", "zts.ts_metrics", "zts.model_metrics", "asyncio", "tornado")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    kept = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in NAMES}
    level = logging.getLogger("zts").level
    yield
    logging.getLogger("zts").setLevel(level)
    for name, (handlers, propagate) in kept.items():
        logger = logging.getLogger(name)
        for handler in logger.handlers:
            handler.close()
        logger.handlers, logger.propagate = handlers, propagate


def settings(folder: Path, log_format: str = "text") -> Settings:
    return Settings(
        runtime_dir="/r",
        endpoints=Endpoints.in_folder("/r"),
        log_dir=str(folder / "logs"),
        metrics_dir=str(folder / "metrics"),
        log_format=log_format,
    )


def test_each_kind_of_line_goes_to_its_file_in_its_form(tmp_path: Path) -> None:
    setup_logging(settings(tmp_path), "node")
    lines = {
        "logs/ts_log.log": ("zts.node", rf"{STAMP} \[INFO \] node zts\.node - text"),
        "logs/access_log.log": ("zts.access", rf"{STAMP} - text"),
        "logs/model_log.log": ("zts.model", rf"{STAMP} \[INFO \] text"),
        "metrics/ts_metrics.log": ("zts.ts_metrics", rf"{STAMP} - text"),
        "metrics/model_metrics.log": ("zts.model_metrics", rf"{STAMP} - text"),
    }
    for name, _form in lines.values():
        logging.getLogger(name).info("text")
    for path, (_name, form) in lines.items():
        assert re.fullmatch(form + "\n", (tmp_path / path).read_text()), path


@pytest.mark.parametrize("formatter", [TextFormatter("r"), JsonFormatter("r")])
def test_a_file_of_an_earlier_day_is_moved_away_first(tmp_path: Path, formatter: logging.Formatter) -> None:
    path = tmp_path / "x.log"
    old = "2020-01-01T00:00:00,000 - old\n"
    path.write_text(old)
    handler = RotatingFileHandler(path)
    handler.setFormatter(formatter)
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.warning("new")
    logger.warning("newer")
    handler.close()
    assert (tmp_path / "x.log.1").read_text() == old
    assert len(path.read_text().splitlines()) == 2
    assert not (tmp_path / "x.log.2").exists()


def test_json_lines_are_objects(tmp_path: Path) -> None:
    setup_logging(settings(tmp_path, "json"), "node")
    logging.getLogger("zts.model").info("said", extra={"model": "m", "worker_pid": 7})
    told = json.loads((tmp_path / "logs" / "model_log.log").read_text())
    assert (told["message"], told["model"], told["worker_pid"], told["role"]) == ("said", "m", 7, "node")


def test_log_files_are_closed_to_other_users(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        handler = RotatingFileHandler(tmp_path / "x.log")
        handler.handle(logging.makeLogRecord({"msg": "hello"}))
        handler.close()
    finally:
        os.umask(umask)
    assert (tmp_path / "x.log").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_several_lines_of_a_model_in_one_record_are_lines_of_their_own(tmp_path: Path, log_format: str) -> None:
    setup_logging(settings(tmp_path, log_format), "node")
    logging.getLogger("zts.model").warning("%s", "W-1 - one\nW-1 - two", extra={"model": "m", "stream": "stderr"})
    text = (tmp_path / "logs" / "model_log.log").read_text()
    if log_format == "text":
        assert re.fullmatch(rf"{STAMP} \[WARN \] W-1 - one\n{STAMP} \[WARN \] W-1 - two\n", text)
    else:
        rows = [json.loads(line) for line in text.splitlines()]
        assert [(row["message"], row["model"], row["stream"]) for row in rows] == [
            ("W-1 - one", "m", "stderr"),
            ("W-1 - two", "m", "stderr"),
        ]


def test_long_lines_count_as_what_they_are_for_the_rotation(tmp_path: Path) -> None:
    handler = RotatingFileHandler(tmp_path / "x.log", max_bytes=1_000_000)
    for number in range(12):
        handler.emit(logging.LogRecord("zts.model", logging.INFO, "", 0, "%d" + "x" * 200_000, (number,), None))
    handler.close()
    assert max(path.stat().st_size for path in tmp_path.glob("x.log*")) < 1_300_000
    assert len(list(tmp_path.glob("x.log.*"))) >= 2


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_rotation_whose_lock_is_held_neither_waits_nor_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("2020-01-01T00:00:00,000 - old\n")
    lock = tmp_path / "x.log.lock"
    lock.touch(0o644)
    lock.chmod(0o644)
    handler = RotatingFileHandler(path)
    handler.setFormatter(TextFormatter("r"))

    def log(seconds: float) -> None:
        record = logging.makeLogRecord({"name": "zts", "msg": "new"})
        record.created = time.time() + seconds
        handler.emit(record)

    with lock.open() as held:  # as any local program may have done while the lock was readable by all
        fcntl.flock(held, fcntl.LOCK_EX)
        done = threading.Thread(target=log, args=(0.0,), daemon=True)
        done.start()
        done.join(60)
        assert not done.is_alive(), "it waits for the lock"
        assert len(lines_of(path)) == 2
        assert lock.stat().st_mode & 0o777 == 0o600
        log(1.0)  # not asked again at each line
        assert len(lines_of(path)) == 3
    log(11.0)
    handler.close()
    assert len(lines_of(path)) == 1
    assert len(lines_of(tmp_path / "x.log.1")) == 3


def test_a_log_file_that_is_a_pipe_costs_lines_not_the_service(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "x.log"
    os.mkfifo(path)
    handler = RotatingFileHandler(path)

    def log(text: str) -> None:
        done = threading.Thread(target=handler.emit, args=(logging.makeLogRecord({"msg": text}),), daemon=True)
        done.start()
        done.join(60)
        assert not done.is_alive(), "it waits for a reader"

    log("nobody reads")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log("read")
    assert os.read(reader, 100) == b"read\n"
    for _ in range(200):
        log("x" * 1000)  # more than a pipe holds
    os.read(reader, 1 << 20)
    log("again")
    assert os.read(reader, 100).endswith(b"again\n")
    os.close(reader)
    handler.close()
    assert "log lines are lost" in capfd.readouterr().err


def test_a_reader_that_stands_still_costs_lines_not_the_service() -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer, patience_s=0.01)
    assert outlet.write(b"first\n") == 0
    lost = outlet.write(b"y" * (1 << 20))
    assert 0 < lost < 1 << 20
    assert outlet.write(b"more\n") == 5
    assert os.get_blocking(writer), "others share the descriptor"
    held = b""
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(reader, 1 << 16):
            held += chunk
    assert held == b"first\n" + b"y" * ((1 << 20) - lost)
    assert outlet.write(b"last\n") == 0
    assert (
        os.read(reader, 1000)
        == f"\nzts: {lost + 5} bytes of output were lost, because they were not read\nlast\n".encode()
    )
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        outlet.write(b"x")
    os.close(writer)


def test_a_child_that_is_given_another_stream_keeps_nothing_of_the_first(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer)
    outlet.write(b"before\n")
    ended, say_end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        os.close(say_end)
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
        os.read(ended, 1)  # lives until the test has seen the end of the pipe
        os._exit(0)
    os.close(writer)
    outlet.let_go()
    os.set_blocking(reader, True)
    done = threading.Thread(target=lambda: [os.read(reader, 100), os.read(reader, 100)], daemon=True)
    done.start()
    done.join(60)
    is_open = done.is_alive()
    os.close(say_end)
    os.waitpid(pid, 0)
    assert not is_open, "the child holds the pipe open"
    for fd in (reader, ended):
        os.close(fd)


def test_what_is_given_may_change_and_files_are_written_whole(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer)
    outlet.write(b"to the pipe\n")
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"there\n")
        os.dup2(file.fileno(), writer)
        outlet.write(b"z" * 100_000)
    assert (tmp_path / "file").read_bytes() == b"there\n" + b"z" * 100_000
    assert os.read(reader, 100) == b"to the pipe\n"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_of_addresses_and_keys_stand_in_no_line(tmp_path: Path, log_format: str) -> None:
    setup_logging(settings(tmp_path, log_format), "node")
    try:
        raise ValueError("GET https://u:S3cr3tWord@h/x?sig=S3cr3tWord, Authorization: Bearer S3cr3tWord")
    except ValueError:
        logging.getLogger("zts.node").exception("fetching %s failed", "https://h/x?token=S3cr3tWord")
    text = (tmp_path / "logs" / "ts_log.log").read_text()
    assert "S3cr3tWord" not in text
    assert "token=***" in text
    assert "Bearer ***" in text


def test_what_libraries_log_of_requests_is_masked_and_made_visible_too(tmp_path: Path) -> None:
    setup_logging(settings(tmp_path), "http")
    for name in ("tornado.general", "tornado.application", "asyncio"):
        logging.getLogger(name).warning("Uncaught exception GET /models?url=a&key=%s\n2026 forged", "S3cr3tWord")
    lines = lines_of(tmp_path / "logs" / "ts_log.log")
    assert len(lines) == 3
    assert all("key=***" in line and "S3cr3tWord" not in line for line in lines)
