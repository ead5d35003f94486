"""Archives, folders and names as an operator meets them: started again, killed, in another order, oddly named."""

from __future__ import annotations

import io
import json
import os
import signal
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from tests.names import AWKWARD, REACHABLE
from tests.system.conftest import Server, wait_for
from zts.client.sync import Client

HANDLER = """
import json, os

class Handler:
    def initialize(self, context):
        self.dir = context.system_properties["model_dir"]
        self.name = context.model_name
        with open(os.path.join(self.dir, "state.txt"), "a") as file:
            file.write(self.name + ";")

    def handle(self, data, context):
        with open(os.path.join(self.dir, "state.txt")) as file:
            return [json.dumps({"dir": self.dir, "name": self.name, "state": file.read()}) for _ in data]
"""
UNPACKS = HANDLER.replace(
    "        self.name = context.model_name\n",
    """        self.name = context.model_name
        import zipfile
        if not os.path.exists(os.path.join(self.dir, "vocab.txt")):
            with zipfile.ZipFile(os.path.join(self.dir, "tok.zip")) as tok:
                tok.extractall(self.dir)
            os.remove(os.path.join(self.dir, "tok.zip"))
        open(os.path.join(self.dir, "vocab.txt")).close()
""",
)


def archive(path: Path, name: str, version: str = "1.0", code: str = HANDLER, **files: bytes) -> Path:
    model = {"modelName": name, "modelVersion": version, "handler": "own.py"}
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "PYTHON", "model": model}))
        made.writestr("own.py", code)
        for file, data in files.items():
            made.writestr(file.replace("_zip", ".zip"), data)
    return path


def zipped(**members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, text in members.items():
            made.writestr(name.replace("_", "."), text)
    return out.getvalue()


def said(server: Server, name: str) -> dict[str, Any]:
    answer = server.predict(quote(name, safe=""))
    assert answer.status == 200, answer.body
    return dict(answer.json())


def start(server: Server, *flags: str) -> None:
    """Start it again: what it printed before does not count."""
    server.output.unlink(missing_ok=True)
    server.start(*flags)


def unpacked(server: Server) -> list[Path]:
    folders = (server.runtime_dir / "models").glob("*/*")
    return [path for path in folders if path.parent.name != "cache"]


def versions(server: Server, name: str) -> list[tuple[str, list[str]]]:
    records = server.manage("GET", f"/models/{name}/all").json()
    return [(record["modelVersion"], [worker["id"] for worker in record["workers"]]) for record in records]


def test_the_first_listed_is_the_default_in_every_start_however_large_it_is(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--ncs")
    archive(server.store / "m_1.0.mar", "m", "1.0", weights=os.urandom(60_000_000))
    archive(server.store / "m_1.1.mar", "m", "1.1")
    archive(server.store / "m_2.0.mar", "m", "2.0")
    listed = ["--models", "m=m_1.0.mar", "m=m_1.1.mar", "m=m_2.0.mar"]
    config = server.folder / "my.properties"
    workers = "default_workers_per_model=1\n"
    for text, default in ((workers, "1.0"), (workers, "1.0"), (workers + CHOSEN, "1.1")):
        config.write_text(text)
        start(server, "--ts-config", str(config), *listed)
        assert server.manage("GET", "/models/m").json()[0]["modelVersion"] == default
        assert versions(server, "m") == [("1.0", ["9000"]), ("1.1", ["9001"]), ("2.0", ["9002"])]
        server.stop()


CHOSEN = 'models={"m": {"1.1": {"defaultVersion": true, "marName": "m_1.1.mar", "minWorkers": 1, "maxWorkers": 1}}}\n'


def test_each_registration_and_each_start_has_fresh_files_and_a_restarted_worker_finds_its_own(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--ncs", "--models", "c1=c.mar", "c2=c.mar", ZTS_DEFAULT_WORKERS_PER_MODEL="1")
    archive(server.store / "c.mar", "c", code=UNPACKS, tok_zip=zipped(vocab_txt="words"))
    for is_killed in (True, False):
        start(server)
        # Nothing is left of the start before this one, which was killed.
        assert len(unpacked(server)) == 2
        first, second = said(server, "c1"), said(server, "c2")
        assert (first["state"], second["state"]) == ("c1;", "c2;")
        assert first["dir"] != second["dir"]
        (pid,) = [worker["pid"] for worker in server.workers("c1")]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: server.workers("c1")[0]["pid"] not in (pid, -1), "the worker is back")
        assert said(server, "c1") == {**first, "state": "c1;c1;"}
        server.manage("PUT", "/models/c1?min_worker=2&synchronous=true")
        assert said(server, "c1")["dir"] == first["dir"]  # workers of one model share its folder
        assert server.manage("DELETE", "/models/c2").status == 200
        wait_for(lambda gone=second["dir"]: not Path(gone).exists(), "the files of an unregistered model are gone")
        assert Path(first["dir"]).exists()
        if is_killed:
            left = server.processes()
            for process in left:
                process.kill()
            assert server.process is not None
            server.process.wait(20)
            psutil.wait_procs(left, timeout=20)
            server.process = None
            assert Path(first["dir"]).exists()
        else:
            server.stop()
    assert list((server.runtime_dir / "models").glob("*")) == []


def test_an_operators_own_paths_are_served_and_restored_and_a_callers_are_not(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    folder = tmp_path / "opt" / "ml" / "model"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "module.py").write_text(
        "def handle(data, context):\n    return [context.system_properties['model_dir'] for _ in data or ()]\n"
    )
    outside = archive(tmp_path / "x.mar", "x")
    server = make_server()
    config = server.folder / "my.properties"
    config.write_text("default_service_handler=package.module:handle\ndefault_workers_per_model=1\n")
    server.start("--ts-config", str(config), "--models", f"model={folder}", f"x={outside}")
    for _ in range(2):
        # The folder's only subfolder stands for it, as in TorchServe, and is found as the package that it is.
        assert os.path.realpath(server.predict("model").body.decode()) == str(folder / "package")
        assert said(server, "x")["name"] == "x"
        for url in (str(folder), str(outside), f"{server.store}/../x.mar"):
            answer = server.manage("POST", f"/models?url={quote(url)}&model_name=y&at_startup=true")
            assert (answer.status, answer.json()["type"]) == (404, "ModelNotFoundException")
        server.stop()
        start(server)  # from the snapshot
    # Who may use the control socket is the operator, too.
    done = server.run("models", "register", str(outside), "--model-name", "by hand")
    assert (done.returncode, done.stdout) == (0, "registered by hand 1.0 with 1 workers\n"), done.stderr
    assert said(server, "by hand")["name"] == "by hand"


def is_safe(line: str) -> bool:
    return not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char == "\u202e" for char in line)


@pytest.mark.separate_only("names take the same ways in both modes, and there are many")
def test_whatever_a_name_holds_it_is_served_and_shown_safely_everywhere(make_server: Callable[..., Server]) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    server = make_server("--ncs", ZTS_DEFAULT_WORKERS_PER_MODEL="0")
    (server.folder / "config.properties").write_text("metrics_mode=prometheus\n")
    names = [
        "weird name-x.y",
        "line\nend",
        "\x1b[31mred",
        "\u202eleft",
        "..",
        "--help",
        "q\"uote'",
        "a,b:c|d",
        "nul\x00x",
    ]
    for number, name in enumerate([*names, "../up"]):
        archive(server.store / f"n{number}.mar", name)
    server.start()
    for number in range(len(names) + 1):
        answer = server.manage("POST", f"/models?url=n{number}.mar&initial_workers=1&synchronous=true")
        assert answer.status == 200, answer.body
    for name in names:
        assert said(server, name)["name"] == name
    with Client(f"ipc://{server.runtime_dir}/client.ipc") as client:
        assert json.loads(client.predict("../up", b"x"))["name"] == "../up"  # no path leads there, as in TorchServe
    listed = server.run("models", "list")
    status = server.run("status")
    for shown in (listed.stdout, status.stdout):
        assert all(is_safe(line) for line in shown.split("\n"))
        assert "weird name-x.y" in shown and r"line\nend" in shown and r"\x1b[31mred" in shown
    assert len(listed.stdout.strip().split("\n")) == len(names) + 2
    text = call_metrics(server)
    assert all(is_safe(line) for line in text.split("\n"))
    seen = {
        sample.labels["model_name"]
        for family in parser.text_string_to_metric_families(text.replace('",}', '"}'))
        for sample in family.samples
        if sample.name.startswith("ts_inference_requests")
    }
    assert {"weird name-x.y", "line\nend", r"\x1b[31mred", "a,b:c|d"} <= seen
    server.stop()
    for path in (server.output, *(server.folder / "logs").glob("*.log")):
        assert all(is_safe(line) for line in path.read_text().split("\n")), path
    assert sorted(path.name for path in server.folder.iterdir()) == [
        "config.properties",
        "logs",
        "output.log",
        "run",
        "store",
    ]


def call_metrics(server: Server) -> str:
    from tests.system.conftest import call

    return call(server.url("metrics", "/metrics")).body.decode()


def test_registering_what_a_test_of_names_registers(make_server: Callable[..., Server]) -> None:
    server = make_server("--ncs")
    archive(server.store / "m.mar", "m")
    server.start()
    for name in AWKWARD:
        answer = server.manage("POST", f"/models?url=m.mar&model_name={quote(name, safe='')}&initial_workers=0")
        assert answer.status == 200, (name, answer.body)
    listed = [row["modelName"] for row in server.manage("GET", "/models?limit=100").json()["models"]]
    assert listed == sorted(AWKWARD)
    for name in REACHABLE:
        one = quote(name, safe="")
        assert server.manage("GET", f"/models/{one}").json()[0]["modelName"] == name
        assert server.manage("DELETE", f"/models/{one}").status == 200


def test_a_page_in_the_place_of_an_archive_is_named_in_answer_and_log(make_server: Callable[..., Server]) -> None:
    server = make_server("--ncs", "--models", "page.mar")
    (server.store / "page.mar").write_text("<html>sign in</html>")
    server.start()
    cause = "Failed to save model: page.mar: it is a web page (HTML)"
    assert server.log().count(cause) == 1
    answer = server.manage("POST", "/models?url=page.mar")
    assert answer.status == 500 and answer.json()["message"].startswith(cause)
    wait_for(lambda: server.log().count(cause) == 2, "it is in the log")
