"""Where archives may come from, as a caller meets it: canonical addresses, links, odd files, hosts that are slow."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import stat
import struct
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zts import regular_file
from zts.errors import DownloadFailed, ModelNotFound, ZtsError
from zts.regular_file import NotRegular, open_regular
from zts.settings import Endpoints, Settings
from zts.supervisor.startup_models import startup_models
from zts.workers.node import download as downloads
from zts.workers.node.download import download
from zts.workers.node.store import ModelStore, Prepared

MANIFEST = {"modelName": "m", "modelVersion": "1.0", "handler": "h.py"}


def archive(path: Path, **model: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("h.py", "def handle(data, context): return data")
        file.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {**MANIFEST, **model}}))
    return path


class Store:
    """A model store that callers of REST ask, with its threads."""

    def __init__(self, folder: Path, allowed: tuple[str, ...]) -> None:
        self.folder = folder / "store"
        self.folder.mkdir(exist_ok=True)
        runtime_dir = str(folder / "run")
        settings = Settings(
            runtime_dir=runtime_dir,
            endpoints=Endpoints.in_folder(runtime_dir),
            model_store=str(self.folder),
            allowed_urls=allowed,
        )
        self._woken = threading.Condition()
        self._done: dict[object, Prepared] = {}
        self._models = ModelStore(settings, gpu_count=0, wake=self._wake)

    def _wake(self) -> None:
        with self._woken:
            self._done |= {prepared.ticket: prepared for prepared in self._models.take()}
            self._woken.notify_all()

    def order(self, ticket: object, **args: Any) -> None:
        self._models.prepare(ticket, args)

    def answer(self, ticket: object) -> Prepared:
        with self._woken:
            assert self._woken.wait_for(lambda: ticket in self._done, 60)
            return self._done.pop(ticket)

    def ask(self, **args: Any) -> Prepared:
        self.order("asked", **args)
        return self.answer("asked")

    def refused(self, **args: Any) -> ZtsError:
        error = self.ask(**args).error
        assert error is not None, args
        return error

    def remove(self, prepared: Prepared) -> None:
        assert prepared.spec is not None
        self._models.remove(prepared.spec.files_id)

    def is_waiting(self, ticket: object) -> bool:
        with self._woken:
            return ticket not in self._done

    def close(self) -> None:
        self._models.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []

    def make(*allowed: str) -> Store:
        stores.append(Store(tmp_path, allowed))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


# ------------------------------------------------------------ files


def test_a_rule_for_one_folder_lets_nothing_of_another_through(opened: Callable[..., Store], tmp_path: Path) -> None:
    secret = archive(tmp_path / "private" / "x.mar")
    archive(tmp_path / "allowed" / "sub" / "ok.mar")
    (tmp_path / "allowed" / "link.mar").symlink_to(secret)
    (tmp_path / "allowed" / "folder").symlink_to(secret.parent)
    (tmp_path / "allowed" / "relative").symlink_to("../private")
    (tmp_path / "allowed" / "dangling.mar").symlink_to(tmp_path / "private" / "none.mar")
    store = opened(f"file://{tmp_path}/allowed/.*")
    base = f"file://{tmp_path}/allowed"
    for tail in (
        "%2e%2e/private/x.mar",
        "%252e%252e/private/x.mar",
        "sub/%2E%2E/%2e%2e/private/x.mar",
        "..%2fprivate/x.mar",
        "\t../private/x.mar",
        ".\t./private/x.mar",
        "sub\t/ok.mar",
        "link.mar",
        "folder/x.mar",
        "relative/x.mar",
        "dangling.mar",
    ):
        error = store.refused(url=f"{base}/{tail}")
        assert error.http_status in (404, 400), tail
        assert list(store.folder.iterdir()) == []
    # Whether a file of another place exists cannot be told from the answer.
    there, missing = (store.refused(url=f"file://{tmp_path}/private/{name}.mar") for name in ("x", "none"))
    assert there.public_message == missing.public_message.replace("none.mar", "x.mar")
    assert store.ask(url=f"{base}/sub/%6fk.mar").error is None
    assert [path.name for path in store.folder.iterdir()] == ["ok.mar"]


def test_the_folder_that_a_rule_names_may_be_a_link(opened: Callable[..., Store], tmp_path: Path) -> None:
    archive(tmp_path / "disk" / "models" / "m.mar")
    archive(tmp_path / "disk" / "x.mar")
    (tmp_path / "models").symlink_to(tmp_path / "disk" / "models")
    (tmp_path / "disk" / "models" / "out").symlink_to(tmp_path / "disk")
    store = opened(f"file://{tmp_path}/models/.*")
    assert store.ask(url=f"file://{tmp_path}/models/m.mar").error is None
    assert store.refused(url=f"file://{tmp_path}/models/out/x.mar").http_status == 404


def test_what_is_read_is_what_was_allowed_although_the_name_means_another_file_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, good = archive(tmp_path / "private" / "x.mar"), archive(tmp_path / "allowed" / "good.mar")
    link = tmp_path / "allowed" / "m.mar"
    link.symlink_to(good)
    store = tmp_path / "store"
    store.mkdir()
    rules = (f"file://{tmp_path}/allowed/.*",)

    @contextlib.contextmanager
    def switched(path: str, *, before: bool) -> Iterator[Any]:
        def switch() -> None:
            link.unlink()
            link.symlink_to(secret)

        if before:
            switch()
        with regular_file.pinned(path) as found:
            if not before:
                switch()
            yield found

    monkeypatch.setattr(downloads, "pinned", lambda path: switched(path, before=False))
    assert download(f"file://{link}", store, rules).read_bytes() == good.read_bytes()
    (store / "m.mar").unlink()
    link.unlink()
    link.symlink_to(good)
    monkeypatch.setattr(downloads, "pinned", lambda path: switched(path, before=True))
    with pytest.raises(ModelNotFound):
        download(f"file://{link}", store, rules)
    assert list(store.iterdir()) == []


@pytest.fixture
def odd_files(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Return files that nobody should wait for, by kind."""
    folder = tmp_path / "odd"
    folder.mkdir()
    os.mkfifo(folder / "fifo.mar")
    (folder / "folder.mar").mkdir()
    (folder / "device.mar").symlink_to("/dev/zero")
    (folder / "linked.mar").symlink_to(folder / "fifo.mar")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.mar"))
        yield {path.stem: path for path in folder.iterdir()}


def test_only_regular_files_are_opened(odd_files: dict[str, Path]) -> None:
    for path in odd_files.values():
        with pytest.raises(NotRegular):
            open_regular(path)


def test_what_is_no_file_holds_no_thread_wherever_it_lies(
    opened: Callable[..., Store], odd_files: dict[str, Path], tmp_path: Path
) -> None:
    store = opened("file://.*")
    archive(store.folder / "good.mar")
    for kind, path in odd_files.items():
        words = "it is a folder" if kind == "folder" else "not a regular file"
        assert words in store.refused(url=f"file://{path}").public_message
        if kind == "folder":
            continue
        in_store = store.folder / path.name
        in_store.symlink_to(path)
        for url in (path.name, str(in_store)):
            assert store.refused(url=url).http_status == 404
        assert store.refused(url=str(path), at_startup=True).http_status == 404
    assert store.ask(url="good.mar").error is None


def test_a_start_with_all_of_the_store_leaves_odd_files_out(tmp_path: Path, odd_files: dict[str, Path]) -> None:
    folder = odd_files["fifo"].parent
    archive(folder / "good.mar")
    (folder / "served" / "MAR-INF").mkdir(parents=True)
    os.mkfifo(folder / "served" / "MAR-INF" / "MANIFEST.json")
    assert [model.url for model in startup_models(["all"], str(folder))] == ["good.mar"]


@pytest.mark.parametrize("entry", ["MAR-INF/MANIFEST.json", "model-config.yaml"])
def test_a_fifo_in_a_served_folder_holds_no_thread(opened: Callable[..., Store], entry: str) -> None:
    store = opened("file://.*")
    folder = store.folder / "served"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(
        json.dumps({"model": {**MANIFEST, "configFile": "model-config.yaml"}})
    )
    (folder / entry).unlink(missing_ok=True)
    os.mkfifo(folder / entry)
    assert "not a regular file" in store.refused(url="served").public_message


@pytest.mark.parametrize(
    ("mode", "copy"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o644), (0o755, 0o644), (0o666, 0o644), (0o604, 0o604)]
)
def test_a_copy_gives_nobody_more_rights_than_the_source(tmp_path: Path, mode: int, copy: int) -> None:
    source = archive(tmp_path / "m.mar")
    source.chmod(mode)
    store = tmp_path / "store"
    store.mkdir()
    made = download(f"file://{source}", store, ("file://.*",))
    assert stat.S_IMODE(made.stat().st_mode) == copy


def test_a_copy_for_another_group_is_for_nobody_unless_the_source_is_for_all(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("gives a file to another group")
    store = tmp_path / "store"
    store.mkdir()
    for mode, copy in ((0o640, 0o600), (0o604, 0o600), (0o644, 0o644)):
        source = archive(tmp_path / f"m{mode:o}.mar")
        os.chown(source, -1, 12345)
        source.chmod(mode)
        made = download(f"file://{source}", store, ("file://.*",))
        assert stat.S_IMODE(made.stat().st_mode) == copy


def test_a_copy_of_a_file_with_an_access_list_is_for_its_owner_only(tmp_path: Path) -> None:
    source = archive(tmp_path / "m.mar")
    # Version 2; owner rw, a user r, group r, mask r, others r.
    rows = [(1, 6, 0xFFFFFFFF), (2, 4, 12345), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)
    try:
        os.setxattr(source, "system.posix_acl_access", value)
    except OSError as exc:
        pytest.skip(f"the file system of the temporary folder has no access lists: {exc}")
    store = tmp_path / "store"
    store.mkdir()
    assert stat.S_IMODE(download(f"file://{source}", store, ("file://.*",)).stat().st_mode) == 0o600


def test_a_file_for_which_there_is_no_room_is_not_begun(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with (tmp_path / "sparse.mar").open("wb") as file:
        file.truncate(shutil.disk_usage(store).free * 2)
    with pytest.raises(DownloadFailed, match="the model store has not so much room"):
        download(f"file://{tmp_path}/sparse.mar", store, ("file://.*",))
    assert list(store.iterdir()) == []


# ------------------------------------------------------------ what requests and manifests name


@pytest.mark.parametrize(
    "handler", ["{dir}/evil.py:f", "../../evil.py:f", "a/../../evil:f", "..\\evil.py:f", "{dir}/evil"]
)
def test_no_request_runs_code_from_outside_the_archive(
    opened: Callable[..., Store], tmp_path: Path, handler: str
) -> None:
    (tmp_path / "evil.py").write_text("def f(data, context): return data")
    handler = handler.format(dir=tmp_path)
    store = opened("file://.*")
    archive(store.folder / "m.mar")
    error = store.refused(url="m.mar", handler=handler)
    assert (error.http_status, error.type_name) == (400, "InvalidModelException")
    assert "outside the archive" in error.public_message
    for said in ("at_startup", "by_operator"):
        spec = store.ask(url="m.mar", handler=handler, **{said: True}).spec
        assert spec is not None and spec.handler == handler
    assert store.ask(url="m.mar", handler="code/h.py:f").error is None
    assert store.ask(url="m.mar", handler="image_classifier").error is None


@pytest.mark.parametrize("key", ["handler", "serializedFile", "modelFile", "requirementsFile", "configFile"])
@pytest.mark.parametrize("entry", ["/etc/passwd", "../x", "a/../../x", "a\tb"])
def test_a_manifest_names_only_files_of_its_archive(opened: Callable[..., Store], key: str, entry: str) -> None:
    store = opened("file://.*")
    archive(store.folder / "m.mar", **{key: entry})
    for by_operator in ({}, {"at_startup": True}):
        error = store.refused(url="m.mar", **by_operator)
        assert (error.http_status, error.type_name) == (400, "InvalidModelException")
        assert f"the manifest's {key}" in error.public_message


def test_a_folder_that_the_operator_serves_may_point_elsewhere(opened: Callable[..., Store], tmp_path: Path) -> None:
    store = opened("file://.*")
    folder = store.folder / "own"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(
        json.dumps({"model": {**MANIFEST, "serializedFile": "/disk/w.pt"}})
    )
    assert store.ask(url="own", at_startup=True).error is None
    assert store.refused(url="own").http_status == 400


# ------------------------------------------------------------ hosts


class Hosts:
    """A server that answers as the first part of the path says, a byte at a time."""

    def __init__(self, good: bytes) -> None:
        self.stopping = threading.Event()
        self.asked: list[str] = []
        self._good = good
        self._server = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.port = self._server.getsockname()[1]

    def _accept(self) -> None:
        while True:
            connection, _ = self._server.accept()
            if self.stopping.is_set():
                connection.close()
                return
            self._threads.append(threading.Thread(target=self._answer, args=(connection,)))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            path = connection.recv(65536).split(b" ")[1].decode("latin-1")
            self.asked.append(path)
            kind = path.split("/")[1]
            if kind == "good":
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(self._good)}\r\nconnection: keep-alive\r\n\r\n"
                connection.sendall(head.encode() + self._good)
                self.stopping.wait()  # an end of the connection is not needed
            elif kind == "to":
                to = bytes.fromhex(path.split("/")[2]).decode()
                connection.sendall(f"HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n".encode())
            else:
                begin = {"body": b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"}
                begin["chunks"] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\n"
                begin["trailers"] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
                begin["head"] = b"HTTP/1.1 200 OK\r\n"
                begin["headers"] = begin["continues"] = begin["status"] = b""
                text = {"headers": b"HTTP/1.1 200 OK\r\nx: ", "continues": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000}
                connection.sendall(begin[kind])
                self._dribble(connection, text.get(kind, b"") + b"x" * 100_000)

    def _dribble(self, connection: socket.socket, text: bytes) -> None:
        for at in range(len(text)):
            connection.sendall(text[at : at + 1])
            if self.stopping.wait(0.02):
                return

    def close(self) -> None:
        self.stopping.set()
        socket.create_connection(self._server.getsockname()).close()
        for thread in self._threads:
            thread.join()
        self._server.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(archive(tmp_path / "good.mar").read_bytes())
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of two seconds in the place of minutes."""
    monkeypatch.setattr("zts.workers.node.pace._WINDOW_S", 2.0)
    monkeypatch.setattr("zts.workers.node.pace._HEAD_S", 2.0)
    monkeypatch.setattr("zts.workers.node.pace.LOOK_S", 0.2)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("body", "at least 1024 a second"),
        ("chunks", "at least 1024 a second"),
        ("trailers", "at least 1024 a second"),
        ("head", "did not begin within 2 s"),
        ("headers", "did not begin within 2 s"),
        ("continues", "did not begin within 2 s"),
        ("status", "did not begin within 2 s"),
    ],
)
def test_a_host_that_sends_a_byte_now_and_then_is_given_up(
    hosts: Hosts, tmp_path: Path, impatient: None, kind: str, words: str
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with pytest.raises(DownloadFailed, match=words):
        download(f"http://127.0.0.1:{hosts.port}/{kind}/m.mar", store, ("http://.*",))
    assert list(store.iterdir()) == []


def test_a_rate_of_0_is_no_bound_for_slow_hosts(hosts: Hosts, tmp_path: Path, impatient: None) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with pytest.raises(DownloadFailed, match="it took too long"):
        download(f"http://127.0.0.1:{hosts.port}/body/m.mar", store, ("http://.*",), least_rate=0, whole_s=5.0)


@pytest.mark.parametrize("count", [4, 34])  # two more than there were threads, and than there may be for hosts
def test_good_registrations_go_on_while_hosts_are_slow(
    opened: Callable[..., Store], hosts: Hosts, tmp_path: Path, count: int
) -> None:
    store = opened("http://.*", "file://.*")
    archive(store.folder / "local.mar")
    kinds = ("body", "head", "chunks", "status")
    for number in range(count):
        store.order(number, url=f"http://127.0.0.1:{hosts.port}/{kinds[number % 4]}/slow{number}.mar")
    # Some of one name, which wait for their turn and for nothing else.
    for number in range(40):
        store.order(f"same {number}", url=f"http://127.0.0.1:{hosts.port}/body/slow0.mar")
    assert store.ask(url="local.mar").error is None
    if count == 4:
        assert store.ask(url=f"http://127.0.0.1:{hosts.port}/good/m.mar").error is None
        assert store.ask(url=f"file://{archive(tmp_path / 'f.mar')}").error is None
    assert all(store.is_waiting(number) for number in range(count))


def test_slow_hosts_make_room_in_the_end(opened: Callable[..., Store], hosts: Hosts, impatient: None) -> None:
    store = opened("http://.*")
    for number in range(34):
        store.order(number, url=f"http://127.0.0.1:{hosts.port}/body/slow{number}.mar")
    assert store.ask(url=f"http://127.0.0.1:{hosts.port}/good/m.mar").error is None
    for number in range(34):
        error = store.answer(number).error
        assert error is not None and "at least 1024 a second" in error.public_message


def test_a_name_that_is_not_looked_up_in_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def waits(*args: object, **kwargs: object) -> list[Any]:
        over.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", waits)
    monkeypatch.setattr("zts.workers.node.web_source._LOOK_UP_S", 0.1)
    with pytest.raises(DownloadFailed, match=r"the name of the host was not found within 0\.1 s"):
        download("http://slow.example/m.mar", tmp_path, ("http://.*",))
    over.set()


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x03\x40\x00" + bytes(10_000)], ids=["silent", "slow"])
def test_a_handshake_that_does_not_end_is_given_up(tmp_path: Path, impatient: None, sent: bytes) -> None:
    over = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            for byte in sent:
                connection.sendall(bytes([byte]))
                if over.wait(0.02):
                    return
            over.wait()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DownloadFailed, match=r"nothing came|did not begin"):
            download(f"https://127.0.0.1:{server.getsockname()[1]}/m.mar", tmp_path, ("https://.*",))
        over.set()
        thread.join()


@pytest.mark.parametrize(
    "to",
    [
        "http://evil.example/m.mar",
        "http://127.0.0.1@evil.example/m.mar",
        "http://127.1:{port}/good/m.mar",
        "file:///etc/passwd",
        "ftp://127.0.0.1/m.mar",
        "//evil.example/m.mar",
        "/good/%2e%2e/m.mar",
        "/good/..%2fm.mar",
    ],
)
def test_a_redirection_leads_only_to_what_is_allowed(hosts: Hosts, tmp_path: Path, to: str) -> None:
    to = to.format(port=hosts.port)
    store = tmp_path / "store"
    store.mkdir()
    with pytest.raises(ZtsError):
        download(
            f"http://127.0.0.1:{hosts.port}/to/{to.encode().hex()}/m.mar",
            store,
            (r"http://127\.0\.0\.1.*", "file://.*"),
        )
    assert len(hosts.asked) == 1 and list(store.iterdir()) == []


def test_what_is_asked_for_is_the_one_form_on_each_hop(hosts: Hosts, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    to = f"HTTP://127.0.0.1:{hosts.port}/good/./%7e/m.mar#.exe"
    url = f"HTTP://127.0.0.1:{hosts.port}/./t%6f/{to.encode().hex()}/m.mar#x"
    made = download(url, store, (rf"http://127\.0\.0\.1:{hosts.port}/.*\.mar",))
    assert made.name == "m.mar"
    assert hosts.asked[-1] == "/good/~/m.mar"


def test_tls_keeps_the_pace_too(hosts: Hosts, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with openssl")
    key, pem = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, "-keyout", key, "-out", pem]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    answer = hosts._answer
    monkeypatch.setattr(hosts, "_answer", lambda raw: answer(context.wrap_socket(raw, server_side=True)))
    monkeypatch.setenv("SSL_CERT_FILE", pem)
    store = tmp_path / "store"
    store.mkdir()
    base = f"https://127.0.0.1:{hosts.port}"
    assert download(f"{base}/good/m.mar", store, ("https://.*",)).read_bytes() == (tmp_path / "good.mar").read_bytes()
    for kind in ("body", "status"):
        with pytest.raises(DownloadFailed, match=r"at least 1024 a second|did not begin"):
            download(f"{base}/{kind}/n.mar", store, ("https://.*",))


# ------------------------------------------------------------ what was fetched before


@pytest.mark.parametrize(
    "other",
    [
        "http://127.0.0.1:{port}/good/b/m.mar",
        "http://127.0.0.1:{port}/good/a/m.mar?version=2",
        "http://localhost:{port}/good/a/m.mar",
        "https://127.0.0.1:{port}/good/a/m.mar",
        "file://{dir}/m.mar",
    ],
)
def test_a_fetched_file_stands_for_its_own_address_only(
    opened: Callable[..., Store], hosts: Hosts, tmp_path: Path, other: str
) -> None:
    archive(tmp_path / "m.mar")
    store = opened("http.*", "file://.*")
    url = f"http://127.0.0.1:{hosts.port}/good/a/m.mar"
    first = store.ask(url=url)
    assert first.error is None
    assert store.ask(url=url, at_startup=True).error is None  # the same is taken
    assert len(hosts.asked) == 1
    another = other.format(port=hosts.port, dir=tmp_path)
    assert store.refused(url=another, at_startup=True).public_message == "Model file already exists m.mar"
    store.remove(first)
    assert store.ask(url=url).error is None  # gone with its registration: fetched anew
    assert len(hosts.asked) == 2


def test_rules_hold_for_what_was_fetched_before_as_well(opened: Callable[..., Store], hosts: Hosts) -> None:
    store = opened("https://.*")
    archive(store.folder / "m.mar")
    assert store.refused(url=f"http://127.0.0.1:{hosts.port}/good/m.mar", resent=True).http_status == 404
    assert hosts.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_of_the_environment_is_used(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """The proxy looks names up; it is asked for the one form of the address."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            asked.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 403 Not through here\r\ncontent-length: 0\r\n\r\n")

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DownloadFailed, match="403 Not through here"):
            download(f"{scheme}://NOWHERE.example.:8080/./m.mar", tmp_path, (rf"{scheme}://nowhere\.example:8080/.*",))
        thread.join()
    wanted = {"http": b"GET http://nowhere.example:8080/m.mar ", "https": b"CONNECT nowhere.example:8080 "}
    assert asked[0].startswith(wanted[scheme])


def test_the_operator_may_write_addresses_that_a_caller_may_not(
    opened: Callable[..., Store], hosts: Hosts, tmp_path: Path
) -> None:
    store = opened("https://elsewhere/.*")
    archive(tmp_path / "disk" / "m.mar")
    (tmp_path / "disk" / "sub").mkdir()
    for url in (f"file://{tmp_path}/disk/sub/../m.mar", f"http://127.0.0.1:{hosts.port}/good/m.mar"):
        assert store.refused(url=url).http_status == 404
        prepared = store.ask(url=url, at_startup=True)
        assert prepared.error is None, url
        store.remove(prepared)
