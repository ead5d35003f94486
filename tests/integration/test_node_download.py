"""Archives fetched into the model store: what is allowed, what is refused with which words, what goes again."""

from __future__ import annotations

import errno
import http.server
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from zts.errors import DownloadFailed, ModelNotFound, ServerError, ZtsError
from zts.settings import Endpoints, Settings
from zts.workers.node.download import download
from zts.workers.node.source_rules import is_url
from zts.workers.node.store import ModelStore, Prepared

MANIFEST = '{"model": {"modelName": "%s", "modelVersion": "1.0", "handler": "h.py"}}'


def archive(path: Path, name: str = "m") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("h.py", "def handle(data, context): return data")
        file.writestr("MAR-INF/MANIFEST.json", MANIFEST % name)
    return path


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away.mar":
            self.send_response(302)
            self.send_header("location", f"http://localhost:{self.server.server_address[1]}/m.mar")
            self.end_headers()
        elif self.path == "/short.mar":
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
        elif self.path == "/circle.mar":
            self.send_response(302)
            self.send_header("location", self.path)
            self.end_headers()
        elif self.path == "/login.mar":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><html>sign in</html>")
        elif self.path == "/nothing.mar":
            self.send_response(204)
            self.end_headers()
        elif self.path == "/broken.mar":
            self.send_error(500, "it broke\x1b[31m")
        elif self.path == "/garbage.mar":
            self.wfile.write(b"220 mail here\r\n")
        elif self.path == "/closed.mar":
            self.close_connection = True
        elif self.path == "/silent.mar":
            self.server.stopping.wait(20)  # type: ignore[attr-defined]
        elif self.path.startswith("/slow"):
            pause_s = 0.5 if self.path == "/slow.mar" else 30.0
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            for _ in range(5):
                self.wfile.write(b"x")
                if self.server.stopping.wait(pause_s):  # type: ignore[attr-defined]
                    return
        else:
            super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Return the address of an HTTP server and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()
    archive(folder / "m.mar")

    def handler(*args: Any) -> Handler:
        return Handler(*args, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.stopping = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.stopping.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


ALL = ("file://.*", "http(s)?://.*")


def test_what_is_fetched_has_its_base_name_and_is_whole(web: tuple[str, Path], store: Path) -> None:
    assert download(f"{web[0]}/m.mar?x=1", store, ALL).read_bytes() == (web[1] / "m.mar").read_bytes()
    assert [path.name for path in store.iterdir()] == ["m.mar"]
    assert download(f"file://{archive(web[1] / 'f.mar')}", store, ALL) == store / "f.mar"
    assert is_url("HTTPS://h/x") and not is_url("s3://b/x") and not is_url("m.mar")


@pytest.mark.parametrize(
    ("path", "patterns", "error", "words"),
    [
        ("/m.mar", ("https://.*",), ModelNotFound, "does not match any allowed URL(s)"),
        ("/m.mar", ("http://127",), ModelNotFound, "does not match any allowed URL(s)"),
        ("/away.mar", ("HTTP://127.*",), ModelNotFound, "Given URL http://localhost"),
        ("/none.mar", ALL, DownloadFailed, "/none.mar. Cause: 404"),
        ("/short.mar", ALL, DownloadFailed, "Cause: the connection ended after 1 of 1000 bytes"),
        ("/", ALL, DownloadFailed, "Cause: it names no file"),
        ("/circle.mar", ALL, DownloadFailed, "/circle.mar. Cause: 302: it is redirected in a circle"),
        ("/broken.mar", ALL, DownloadFailed, r"Cause: 500 it broke\x1b[31m"),
        ("/garbage.mar", ALL, DownloadFailed, "Cause: what answers there is no HTTP server"),
        ("/closed.mar", ALL, DownloadFailed, "Cause: Remote end closed connection without response"),
        ("/there.mar", ALL, ServerError, "Model file already exists there.mar"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing_behind(
    web: tuple[str, Path], store: Path, path: str, patterns: tuple[str, ...], error: type[ZtsError], words: str
) -> None:
    (store / "there.mar").touch()
    with pytest.raises(error) as caught:
        download(web[0] + path, store, patterns)
    assert words in caught.value.public_message
    assert [path.name for path in store.iterdir()] == ["there.mar"]


def test_a_server_that_is_silent_refuses_or_speaks_no_tls_is_named(
    web: tuple[str, Path], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zts.workers.node.download._SILENCE_S", 0.1)
    with pytest.raises(DownloadFailed, match=r"Cause: nothing came for 0\.1 s$"):
        download(f"{web[0]}/silent.mar", store, ALL)
    monkeypatch.undo()
    with pytest.raises(DownloadFailed, match=r"Cause: TLS is not spoken there; is it an http:// address\?$"):
        download(web[0].replace("http:", "https:") + "/m.mar", store, ALL)
    with pytest.raises(DownloadFailed, match=r"Cause: Connection refused$"):
        download(f"http://127.0.0.1:{free_port()}/m.mar", store, ALL)
    with pytest.raises(DownloadFailed, match=r"Cause: No such file or directory$"):
        download("file:///no/such/m.mar", store, ALL)


def test_a_full_store_is_named_whether_or_not_the_length_is_known(
    web: tuple[str, Path], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(store)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5))
    with pytest.raises(DownloadFailed, match=r"and the model store has not so much room$"):
        download(f"{web[0]}/m.mar", store, ALL)
    monkeypatch.undo()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zts.workers.node.download._copy", full)
    with pytest.raises(DownloadFailed, match=r"Cause: No space left on device$"):
        download(f"file://{web[1]}/m.mar", store, ALL)
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [("/login.mar", "it is a web page (HTML)"), ("/nothing.mar", "it is empty (0 bytes)")],
)
def test_a_page_in_the_place_of_an_archive_is_called_one(
    web: tuple[str, Path], store: Path, ask: Any, path: str, words: str
) -> None:
    error = ask(url=web[0] + path).error
    assert error.http_status == 500
    assert error.public_message.startswith(f"Failed to save model: {web[0]}{path}: {words}")
    assert list(store.iterdir()) == []


def test_size_and_time_have_limits(web: tuple[str, Path], store: Path) -> None:
    with pytest.raises(DownloadFailed, match="at most 10 are fetched"):
        download(f"{web[0]}/m.mar", store, ALL, max_bytes=10)
    with pytest.raises(DownloadFailed, match="more than 10 bytes"):
        download(f"file://{web[1]}/m.mar", store, ALL, max_bytes=10)
    with pytest.raises(DownloadFailed, match="it took too long"):
        download(f"{web[0]}/m.mar", store, ALL, whole_s=-1)
    with pytest.raises(DownloadFailed, match="it is a folder"):
        download(f"file://{web[1]}", store, ALL)
    assert list(store.iterdir()) == []


def test_a_slow_download_is_waited_for_and_a_silent_one_is_given_up(
    web: tuple[str, Path], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zts.workers.node.download._SILENCE_S", 2.0)
    assert download(f"{web[0]}/slow.mar", store, ALL).read_bytes() == b"xxxxx"  # in 2.5 seconds
    with pytest.raises(DownloadFailed, match="nothing came for 2 s"):
        download(f"{web[0]}/slower.mar", store, ALL)


@pytest.fixture
def ask(tmp_path: Path, store: Path) -> Iterator[Callable[..., Prepared]]:
    """Return a call that prepares a model and waits for it."""
    done = threading.Event()
    runtime_dir = str(tmp_path / "run")
    settings = Settings(
        runtime_dir=runtime_dir, endpoints=Endpoints.in_folder(runtime_dir), model_store=str(store), allowed_urls=ALL
    )
    models = ModelStore(settings, gpu_count=0, wake=done.set)

    def call(**args: Any) -> Prepared:
        models.prepare("t", args)
        (prepared,) = take(1)
        return prepared

    def take(count: int) -> list[Prepared]:
        out: list[Prepared] = []
        while len(out) < count:
            assert done.wait(20)
            done.clear()
            out += models.take()
        return out

    call.models = models  # type: ignore[attr-defined]
    call.take = take  # type: ignore[attr-defined]
    yield call
    models.close()


def test_a_fetched_archive_goes_with_its_registration(web: tuple[str, Path], store: Path, ask: Any) -> None:
    url = f"{web[0]}/m.mar"
    spec = ask(url=url, model_name="w").spec
    assert spec.url == url
    again = ask(url=url, model_name="w2")
    assert (again.error.http_status, again.error.public_message) == (500, "Model file already exists m.mar")
    archive(web[1] / "other.mar")
    twice = ask(url=f"{web[0]}/other.mar", model_name="w").spec  # whether that is one too many is the broker's to say
    assert sorted(path.name for path in store.iterdir()) == ["m.mar", "other.mar"]
    ask.models.remove(twice.files_id)
    assert [path.name for path in store.iterdir()] == ["m.mar"]
    ask.models.remove(spec.files_id)
    assert ask(url=url, model_name="w").error is None


def test_what_is_no_archive_is_not_kept(web: tuple[str, Path], store: Path, ask: Any) -> None:
    (web[1] / "readme.txt").write_text("hello")
    error = ask(url=f"{web[0]}/readme.txt").error
    assert error.http_status == 500
    assert error.public_message.startswith(f"Failed to save model: {web[0]}/readme.txt")
    assert list(store.iterdir()) == []


def test_a_start_takes_what_an_earlier_one_has_fetched(web: tuple[str, Path], store: Path, ask: Any) -> None:
    archive(store / "m.mar", "kept")
    spec = ask(url=f"{web[0]}/m.mar", at_startup=True).spec
    assert spec.name == "kept"
    ask.models.remove(spec.files_id)
    assert ask(url="m.mar").spec.name == "kept"


def test_the_second_of_two_addresses_with_one_file_name_is_refused(
    web: tuple[str, Path], store: Path, ask: Any
) -> None:
    (web[1] / "sub").mkdir()
    archive(web[1] / "sub" / "m.mar", "second")
    addresses = [f"{web[0]}/m.mar", f"{web[0]}/m.mar?again", f"{web[0]}/sub/m.mar"]
    for number, url in enumerate(addresses * 5):  # all at once: the threads have a race to lose
        ask.models.prepare(number, {"url": url, "at_startup": True, "model_name": f"m{number}"})
    done = {prepared.ticket: prepared for prepared in ask.take(15)}
    assert sorted(number for number, prepared in done.items() if prepared.error is None) == [0, 3, 6, 9, 12]
    assert done[2].error.public_message == "Model file already exists m.mar"


def test_nothing_outside_the_store_is_read_and_the_store_has_all_forms(store: Path, tmp_path: Path, ask: Any) -> None:
    outside = tmp_path / "outside"
    (outside / "MAR-INF").mkdir(parents=True)
    (outside / "MAR-INF" / "MANIFEST.json").write_text(MANIFEST % "o")
    (store / "link").symlink_to(outside)
    for url in (str(outside), f"{store}/../outside", f"{store}/link", str(store), "..", "ftp://h/x.mar", "/"):
        error = ask(url=url).error
        assert error is not None and error.http_status == 404, url
    nested = store / "nested" / "only" / "MAR-INF"
    nested.mkdir(parents=True)
    (nested / "MANIFEST.json").write_text(MANIFEST % "sagemaker")
    (store / "plain").mkdir()
    (store / "plain" / "h.py").write_text("def handle(data, context): return data")
    archive(store / "a.mar")
    assert ask(url="nested").spec.name == "sagemaker"
    assert ask(url=str(store / "nested")).spec.name == "sagemaker"
    assert ask(url="some/where/a.mar").spec.name == "m"
    assert ask(url="plain", handler="h.py").spec.name == "plain"
    missing = ask(url="plain").error
    assert (missing.http_status, missing.type_name) == (400, "InvalidModelException")


def test_what_the_operator_wrote_is_taken_at_its_word_and_the_same_of_a_request_is_not(
    web: tuple[str, Path], store: Path, tmp_path: Path, ask: Any
) -> None:
    folder = tmp_path / "opt" / "ml" / "model"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("def handle(data, context): return data")
    outside = archive(tmp_path / "opt" / "x.mar", "outside")
    (tmp_path / "link").symlink_to(outside)
    by_operator = {
        str(folder): ("model", str(folder)),
        f"{folder}/": ("model", str(folder)),
        f"{folder}/../model": ("model", str(folder)),
        str(outside): ("outside", None),
        str(tmp_path / "link"): ("outside", None),
    }
    for url, (name, model_dir) in by_operator.items():
        refused = ask(url=url, handler="code:handle").error
        assert refused is not None and refused.http_status == 404, url
        prepared = ask(url=url, handler="code:handle", at_startup=True)
        assert prepared.spec.name == name
        assert model_dir is None or os.path.realpath(prepared.model_dir) == model_dir  # a folder is served in place
        # The agent finds it again when its files are lost.
        ask.models.remove(prepared.spec.files_id)
        ask.models.fetch("again", prepared.spec)
        (again,) = ask.take(1)
        assert again.error is None and (model_dir is None or os.path.realpath(again.model_dir) == model_dir)
    archive(store / "kept.mar", "kept")
    assert ask(url="/elsewhere/kept.mar", at_startup=True).spec.name == "kept"  # as in TorchServe
    for url in ("/nowhere/x.mar", "/dev/null", "../opt/x.mar", "x/../../opt/x.mar"):
        error = ask(url=url, at_startup=True).error
        assert error is not None and error.http_status == 404, url


def test_limits_of_size_are_for_what_callers_let_fetch(
    web: tuple[str, Path], store: Path, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zts.workers.node.store.MAX_TOTAL_BYTES", 10)
    archive(store / "own.mar")
    assert ask(url="own.mar").error is None
    refused = ask(url=f"{web[0]}/m.mar", model_name="fetched").error
    assert refused.public_message.endswith("its content is larger than 10 bytes")
    monkeypatch.setattr("zts.workers.node.store.MAX_ARCHIVE_BYTES", 10)
    assert "at most 10 are fetched" in ask(url=f"{web[0]}/m.mar", model_name="fetched").error.public_message
    for said in ("at_startup", "by_operator"):
        prepared = ask(url=f"{web[0]}/m.mar", model_name="fetched", **{said: True})
        assert prepared.error is None
        ask.models.remove(prepared.spec.files_id)


def test_the_list_of_allowed_addresses_is_for_requests(web: tuple[str, Path], store: Path, tmp_path: Path) -> None:
    runtime_dir = str(tmp_path / "run")
    done = threading.Semaphore(0)
    settings = Settings(
        runtime_dir=runtime_dir,
        endpoints=Endpoints.in_folder(runtime_dir),
        model_store=str(store),
        allowed_urls=("https://elsewhere/.*",),
    )
    models = ModelStore(settings, gpu_count=0, wake=done.release)
    asked: list[dict[str, Any]] = [{}, {"at_startup": True}, {"resent": True, "model_name": "two"}]
    out = []
    for args in asked:
        models.prepare("t", {"url": f"{web[0]}/m.mar", **args})
        assert done.acquire(timeout=20)
        out += models.take()
    models.close()
    assert [prepared.error.http_status if prepared.error else 200 for prepared in out] == [404, 200, 404]


@pytest.mark.parametrize(
    ("file", "by_operator", "name"),
    [
        ("my-model.mar", True, "my_model"),
        ("my.model_2.0.mar", True, "my_model_2_0"),
        ("my-tar.tar.gz", True, "my_tar_tar_gz"),
        ("my-model.mar", False, "my-model"),
        ("my-tar.tar.gz", False, "my-tar"),
    ],
)
def test_an_archive_that_says_no_name_has_torchserves_at_a_start_else_its_files(
    store: Path, ask: Any, file: str, by_operator: bool, name: str
) -> None:
    with zipfile.ZipFile(store / file, "w") as bare:
        bare.writestr("h.py", "def handle(data, context): return data")
    assert ask(url=file, handler="h", at_startup=by_operator).spec.name == name
