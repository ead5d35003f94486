"""Archives fetched into the model store: what is allowed, what is refused with which words, what goes again."""

from __future__ import annotations

import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zts.errors import DownloadFailed, ModelNotFound, ServerError, ZtsError
from zts.settings import Endpoints, Settings
from zts.workers.download import download, is_url
from zts.workers.store import ModelStore, Prepared

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
    monkeypatch.setattr("zts.workers.download._SILENCE_S", 2.0)
    assert download(f"{web[0]}/slow.mar", store, ALL).read_bytes() == b"xxxxx"  # in 2.5 seconds
    with pytest.raises(DownloadFailed, match="timed out"):
        download(f"{web[0]}/slower.mar", store, ALL)


@pytest.fixture
def ask(tmp_path: Path, store: Path) -> Callable[..., Prepared]:
    """Return a call that prepares a model and waits for it."""
    done = threading.Event()
    runtime_dir = str(tmp_path / "run")
    settings = Settings(
        runtime_dir=runtime_dir, endpoints=Endpoints.in_folder(runtime_dir), model_store=str(store), allowed_urls=ALL
    )
    models = ModelStore(settings, gpu_count=0, wake=done.set)

    def call(**args: Any) -> Prepared:
        done.clear()
        models.prepare("t", args)
        assert done.wait(20)
        (prepared,) = models.take()
        return prepared

    call.models = models  # type: ignore[attr-defined]
    return call


def test_a_fetched_archive_goes_with_its_model(web: tuple[str, Path], store: Path, ask: Any) -> None:
    url = f"{web[0]}/m.mar"
    assert ask(url=url, model_name="w").spec.url == url
    again = ask(url=url, model_name="w2")
    assert (again.error.http_status, again.error.public_message) == (500, "Model file already exists m.mar")
    archive(web[1] / "other.mar")
    twice = ask(url=f"{web[0]}/other.mar", model_name="w").error
    assert (twice.http_status, twice.public_message) == (409, "Model version 1.0 is already registered for model w")
    assert [path.name for path in store.iterdir()] == ["m.mar"]
    ask.models.remove("w", "1.0")
    assert ask(url=url, model_name="w").error is None


def test_what_is_no_archive_is_not_kept(web: tuple[str, Path], store: Path, ask: Any) -> None:
    (web[1] / "readme.txt").write_text("hello")
    error = ask(url=f"{web[0]}/readme.txt").error
    assert (error.http_status, error.public_message) == (500, f"Failed to save model: {web[0]}/readme.txt")
    assert list(store.iterdir()) == []


def test_a_start_takes_what_an_earlier_one_has_fetched(web: tuple[str, Path], store: Path, ask: Any) -> None:
    archive(store / "m.mar", "kept")
    assert ask(url=f"{web[0]}/m.mar", at_startup=True).spec.name == "kept"
    ask.models.remove("kept", "1.0")
    assert ask(url="m.mar").spec.name == "kept"


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
