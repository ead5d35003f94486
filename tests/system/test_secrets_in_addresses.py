"""A secret in each part of a ``url=``: no file of the instance that others may read shows it, and no answer does."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from .conftest import Server, call, make_archive

pytestmark = pytest.mark.separate_only("the processes that write all outputs are the same with the broker inside")

SECRET = "Zq9SECRETxK"
# What fetches an archive again after a crash: only the owner may enter their folder.
PRIVATE = ("journal.json", "settings.json", "command.json")


class _Site(http.server.BaseHTTPRequestHandler):
    archive = b""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/moved.mar":
            self.send_response(302)
            self.send_header("Location", f"/echo.mar?X-Amz-Signature={SECRET}")
            self.end_headers()
        elif path == "/away.mar":
            self.send_response(302)
            self.send_header("Location", f"ftp://u:{SECRET}@h/echo.mar?sig={SECRET}")
            self.end_headers()
        elif path.endswith("echo.mar"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.archive)))
            self.end_headers()
            self.wfile.write(self.archive)
        else:
            self.send_error(404, f"no {self.path}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    _Site.archive = make_archive(tmp_path, "echo", "echo.py").read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def leaks_in(server: Server) -> list[str]:
    """Return the files that show the secret, with the line."""
    found = []
    for path in sorted(server.folder.rglob("*")):
        if not path.is_file() or (path.parent == server.runtime_dir and path.name in PRIVATE):
            continue
        if path.suffix == ".cfg":  # a snapshot: a start continues from it
            assert path.stat().st_mode & 0o777 == 0o600
            continue
        lines = path.read_text(errors="replace").splitlines()
        found += [f"{path.name}: {line}" for line in lines if SECRET in line]
    return found


def test_no_log_and_no_answer_shows_a_secret_of_an_address(make_server: Callable[..., Server], site: str) -> None:
    server = make_server()
    server.start()
    assert server.runtime_dir.stat().st_mode & 0o777 == 0o700
    answers = []

    def register(url: str, times: int = 1) -> int:
        for _ in range(times):
            url = quote(url, safe="")
        answer = server.manage("POST", f"/models?url={url}&initial_workers=1&synchronous=true", timeout_s=120)
        answers.append(answer.body + str(answer.headers).encode())
        return answer.status

    query = f"X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}&token={SECRET}"
    assert register(f"http://{site}/echo.mar?{query}") == 200
    for path in ("/models", "/models/echo", "/models/echo?customized=true", "/models/echo/all"):
        answers.append(server.manage("GET", path).body)
    answers.append(call(server.url("metrics", f"/metrics?key={SECRET}")).body)
    answers.append(server.predict(f"echo?token={SECRET}").body)
    key = {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET, "Cookie": f"session={SECRET}"}
    for surface, method, path in (
        ("inference", "POST", "/predictions/echo"),
        ("inference", "POST", "/predictions/none"),
        ("inference", "PATCH", "/predictions/echo"),
        ("inference", "POST", "/v2/models/echo/infer"),
        ("management", "POST", "/models?url=none.mar"),
        ("management", "PUT", "/models/echo?min_worker=x"),
        ("management", "GET", "/token?type=management"),
        ("metrics", "GET", "/metrics"),
    ):
        answers.append(call(server.url(surface, path), method=method, headers=key, data=b"{" * (method == "POST")).body)
    printed = [server.run("models", *action) for action in (("list",), ("list", "--json"), ("describe", "echo"))]
    printed += [server.run("models", "describe", "echo", "--json")]
    printed += [server.run("status"), server.run("status", "--json")]
    assert server.manage("DELETE", "/models/echo").status == 200

    assert register(f"http://{site}/moved.mar?{query}") == 200
    for url in (
        f"http://{site}/away.mar?{query}",
        f"http://{site}/gone.mar?{query}",
        f"http://no-such-host.invalid/x.mar?{query}",
        f"http://user:{SECRET}@{site}/echo.mar",
        f"http://{SECRET}@{site}/echo2.mar",
        f"http://user:a/{SECRET}@{site}/echo3.mar",
        f"ftp://user:{SECRET}@{site}/echo.mar?sig={SECRET}",
        f"http://{site}/gone.mar#access_token={SECRET}",
    ):
        assert register(url) >= 400, url
        register(url, 2)  # encoded twice it is the name of a file
    printed.append(server.run("models", "register", f"http://user:{SECRET}@no-such-host.invalid/x.mar?{query}"))
    server.stop()

    for body in answers:
        assert SECRET not in body.decode(errors="replace")
    shown = [line for done in printed for line in (done.stdout + done.stderr).splitlines() if SECRET in line]
    assert shown == []
    assert leaks_in(server) == []
    log = (server.folder / "logs" / "access_log.log").read_text()
    assert "X-Amz-Signature%3D***" in log, log
    assert "token=***" in log, log


def test_an_address_of_the_start_is_shown_without_its_secrets(make_server: Callable[..., Server], site: str) -> None:
    server = make_server("--models", f"http://{site}/echo.mar?token={SECRET}")
    server.start()
    assert server.predict("echo", b"x").body == b"x"
    explained: subprocess.CompletedProcess[str] = server.run("config", "explain", *server.start_flags())
    server.stop()
    assert "token=***" in explained.stdout
    assert SECRET not in explained.stdout + explained.stderr
    assert leaks_in(server) == []
    assert "token=***" in server.log()


def test_files_of_an_instance_are_closed_to_others_whatever_the_umask(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "echo", "echo.py")
    before = os.umask(0)
    try:
        server.start("--models", "echo.mar")
        assert server.predict("echo", b"x").body == b"x"
        server.stop()
        server.start()  # continues from the snapshot, and writes into files that are there
        open_to_others = {
            str(path.relative_to(server.folder)): oct(path.lstat().st_mode)
            for folder in (server.runtime_dir, server.folder / "logs")
            for path in (folder, *folder.rglob("*"))
            if path.lstat().st_mode & 0o007 and not path.is_symlink() and "models" not in path.parts
        }
        server.stop()
    finally:
        os.umask(before)
    assert open_to_others.pop("logs", "") in ("", oct(0o40755))  # what is in it is closed
    assert open_to_others == {}
