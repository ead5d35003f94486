"""What is behind the names of ``ts`` with which code drives a handler by itself; the bytes are TorchServe 0.12's."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.handler_archives import restored_process, write_archive
from zts.workers.handler.import_path import TS_FOLDER

BATCH = [
    {
        "requestId": b"rid1",
        "headers": [{"name": b"h1", "value": b"v1"}],
        "parameters": [
            {"name": "body", "contentType": "application/json", "value": {"a": 1}},
            {"name": "data", "contentType": "", "value": bytearray(b"raw")},
        ],
    },
    {"requestId": b"rid2", "headers": [], "parameters": [{"name": "text", "contentType": "text/plain", "value": "h"}]},
]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_process():
        importlib.import_module("zts.compat")
        sys.modules["zts.workers.ts_compat"].install()
        yield


def number(value: int) -> bytes:
    return struct.pack("!i", value)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return number(len(data)) + data


END = number(-1)


def result(request_id: str, body: bytes, status: int = 200, kind: str = "", phrase: str = "", *headers: str) -> bytes:
    pairs = b"".join(map(text, headers))
    head = text(request_id) + text(kind) + number(status) + text(phrase) + number(len(headers) // 2)
    return head + pairs + text(body)


def reply(code: int, message: str, *results: bytes) -> bytes:
    return number(code) + text(message) + b"".join(results) + END


def load_message(folder: Path, handler: str) -> bytes:
    orders = text("m") + text(str(folder)) + number(2) + text(handler) + END + text("") + b"\x01"
    return b"L" + orders


def batch_message(*bodies: str) -> bytes:
    rows = [
        text(f"r{at}") + END + text("body") + text("text/plain") + text(body) + END for at, body in enumerate(bodies)
    ]
    return b"I" + b"".join(rows) + END


# ---------------------------------------------------------------- the messages


def test_messages_have_torchserves_bytes() -> None:
    from ts.context import Context, RequestProcessor
    from ts.protocol import otf_message_handler as otf

    assert otf.create_load_model_response(500, "né") == number(500) + text("né") + END
    assert otf.encode_response_headers({"a": "b"}) == number(1) + text("a") + text("b")
    ids = {0: "r0", 1: "r1", 2: "r2"}
    assert otf.create_predict_response(["x", bytearray(b"yz"), {"k": [1]}], ids, "ok", 200) == reply(
        200, "ok", result("r0", b"x"), result("r1", b"yz"), result("r2", b'{\n  "k": [\n    1\n  ]\n}')
    )
    assert otf.create_predict_response(None, {0: "r0"}, "no", 503) == reply(503, "no", result("r0", b"error", 503))
    assert otf.create_predict_response([object()], {0: "r0"}, "ok", 200) == reply(
        503, "Unsupported model output data type.", result("r0", b"error", 503)
    )
    context = Context("m", "/d", {}, 2, None, "1")
    context.request_ids = {0: "r0", 1: "r1"}
    context.request_processor = [RequestProcessor({}), RequestProcessor({})]
    context.set_response_content_type(0, "text/x")
    context.set_response_status(201, "Made", 0)
    context.set_response_header(1, "k", "v")
    kept = "content-type", "text/x", "ts_stream_next", "true"
    assert otf.create_predict_response(["x", "y"], context.request_ids, "ok", 200, context, True) == reply(
        200,
        "ok",
        result("r0", b"x", 201, "text/x", "Made", *kept),
        result("r1", b"y", 200, "", "", "k", "v", "ts_stream_next", "true"),
    )


def test_a_tensor_is_sent_as_torch_saves_it() -> None:
    torch = pytest.importorskip("torch")
    from ts.handler_utils.utils import create_predict_response

    whole = create_predict_response([torch.ones(2)], {0: "r0"}, "", 200)
    assert b"PK\x03\x04" in whole


def test_messages_are_read_as_torchserve_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from ts.protocol.otf_message_handler import retrieve_msg

    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"L" + text("m") + text("/p") + number(4) + text("h.py") + number(0) + text("body") + b"\x00")
        orders = {"modelName": b"m", "modelPath": b"/p", "batchSize": 4, "handler": b"h.py", "gpu": 0}
        assert retrieve_msg(here) == (b"L", {**orders, "envelope": b"body", "limitMaxImagePixels": False})
        there.sendall(load_message(Path("/p"), "h"))
        assert "gpu" not in retrieve_msg(here)[1]
        request = text("rid1") + text("h1") + text("v1") + END
        request += text("a") + text("application/json") + text('{"a":1}') + text("b") + text("") + text("raw") + END
        there.sendall((b"I" + request + END) * 2)
        parameters = [
            {"name": "a", "contentType": "application/json", "value": {"a": 1}},
            {"name": "b", "contentType": "", "value": bytearray(b"raw")},
        ]
        headers = [{"name": b"h1", "value": b"v1"}]
        assert retrieve_msg(here) == (b"I", [{"requestId": b"rid1", "headers": headers, "parameters": parameters}])
        monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")
        assert retrieve_msg(here)[1][0]["parameters"][0]["value"] == bytearray(b'{"a":1}')
        there.sendall(b"X")
        with pytest.raises(ValueError, match="Invalid command: b'X'"):
            retrieve_msg(here)
        there.sendall(b"I" + number(-5))
        with pytest.raises(ValueError, match="a part of -5 bytes"):
            retrieve_msg(here)
        there.close()
        with pytest.raises(ConnectionError):
            retrieve_msg(here)


# ---------------------------------------------------------------- the service and its loader


def test_a_batch_becomes_rows_headers_and_ids() -> None:
    from ts.service import Service

    processors, rows, ids = Service.retrieve_data_for_inference(BATCH)
    assert rows == [{"body": {"a": 1}, "data": bytearray(b"raw")}, {"text": "h"}]
    assert ids == {0: "rid1", 1: "rid2"}
    assert processors[0].get_request_properties() == {
        "body": {"content-type": "application/json"},
        "data": {"content-type": ""},
        "h1": "v1",
    }
    assert Service.retrieve_data_for_inference([]) == ([], [], {})
    with pytest.raises(ValueError, match="Received invalid inputs"):
        Service.retrieve_data_for_inference(None)


def failing(exc: BaseException) -> Any:
    def handle(data: Any, context: Any) -> Any:
        raise exc

    return handle


def failures() -> list[tuple[Any, int, str]]:
    from ts.utils.util import PredictionException

    return [
        (failing(ValueError("x")), 503, "Prediction failed"),
        (failing(MemoryError()), 507, "Out of resources"),
        (failing(RuntimeError("CUDA x")), 507, "Out of resources"),
        (failing(PredictionException("mine", 418)), 418, "mine"),
        (lambda data, context: [], 503, "number of batch response mismatched"),
        (lambda data, context: "x", 503, "Invalid model predict output"),
        (lambda data, context: ("a", "b"), 503, "Invalid model predict output"),
    ]


@pytest.mark.parametrize("at", range(7))
def test_what_a_handler_does_wrong_is_answered_as_by_torchserve(at: int) -> None:
    from ts.service import Service

    handle, status, message = failures()[at]
    answer = Service("m", "/d", {}, handle, None, 2).predict(BATCH)
    assert answer == reply(status, message, *(result(rid, b"error", status) for rid in ("rid1", "rid2")))


def test_a_service_runs_a_handler_and_records_its_time(caplog: pytest.LogCaptureFixture) -> None:
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.service import Service

    metrics = MetricsCacheYamlImpl(os.devnull)
    service = Service("m", "/d", {"model": {}}, lambda data, ctx: [ctx.get_request_id(0), "b"], 0, 2, True, metrics)
    assert service.predict(BATCH) == reply(200, "Prediction success", result("rid1", b"rid1"), result("rid2", b"b"))
    assert service.context.system_properties["gpu_id"] == 0
    assert metrics.cache_keys() == ["gauge:PredictionTime"]
    assert Service("m", "/d", {}, lambda data, ctx: ["a", "b"], None, 2).predict(BATCH)[:4] == number(200)


HANDLER = """
from ts.torch_handler.unit_tests.test_utils.mock_context import get_yaml_config
class Own:
    def initialize(self, context):
        self.word = context.model_yaml_config["word"]
    def handle(self, data, context):
        return [self.word + str(row["body"]) for row in data]
"""


def model(folder: Path, **files: str) -> Path:
    config = {"model-config.yaml": "word: hi-\n"}
    return write_archive(folder, {**config, **files}, handler="own.py", configFile="model-config.yaml")


def test_the_loader_makes_a_service_of_a_folder(tmp_path: Path) -> None:
    from ts.model_loader import ModelLoader, ModelLoaderFactory

    pytest.importorskip("torch")  # of the handler's import
    folder = model(
        tmp_path,
        **{"own.py": HANDLER, "fn.py": "def f(data, context):\n    return data and [type(data[0]).__name__]\n"},
    )
    loader = ModelLoaderFactory.get_model_loader()
    assert isinstance(loader, ModelLoader)
    request = [{"requestId": b"r", "headers": [], "parameters": [{"name": "body", "contentType": "", "value": "x"}]}]
    assert loader.load("m", str(folder)).predict(request) == reply(200, "Prediction success", result("r", b"hi-x"))
    service = loader.load("m", str(folder), "fn.py:f", None, 1, "body")
    assert service.predict(request) == reply(200, "Prediction success", result("r", b"str"))
    assert service.context.manifest["model"]["handler"] == "own.py"
    with pytest.raises(ImportError):
        loader.load("m", str(folder), "nothere")
    with pytest.raises(ValueError, match="names no handler"):
        loader.load("m", str(tmp_path / "none"))
    with pytest.raises(NotImplementedError):
        ModelLoader().load("m", str(folder))


# ---------------------------------------------------------------- workers that speak these messages


def test_a_worker_of_torchserves_protocol_loads_and_answers(tmp_path: Path) -> None:
    from ts.model_service_worker import TorchModelServiceWorker

    source = "def handle(data, context):\n    return data and [row['body'].upper() for row in data]\n"
    folder = model(tmp_path / "model", **{"own.py": source})
    path = str(tmp_path / "s.sock")
    worker = TorchModelServiceWorker("unix", path, metrics_config=None)
    thread = threading.Thread(target=worker.run_server)
    thread.start()
    with socket.socket(socket.AF_UNIX) as front_end:
        front_end.settimeout(30)
        _connect(front_end, path)
        front_end.sendall(load_message(folder, "own.py"))
        _expect(front_end, number(200) + text("loaded model m") + END)
        front_end.sendall(batch_message("a", "b"))
        _expect(front_end, reply(200, "Prediction success", result("r0", b"A"), result("r1", b"B")))
    thread.join(30)
    assert not thread.is_alive()
    for arguments in ({}, {"s_type": "unix"}, {"s_type": "tcp"}, {"s_type": "pipe"}):
        with pytest.raises(ValueError, match=r"s_name|port|s_type"):
            TorchModelServiceWorker(**arguments)


@pytest.mark.slow
def test_the_worker_is_a_script(tmp_path: Path) -> None:
    folder = model(tmp_path / "model", **{"own.py": "def handle(data, context):\n    return data and ['x']\n"})
    path = str(tmp_path / "s.sock")
    process = subprocess.Popen(
        [sys.executable, "-m", "ts.model_service_worker", "--sock-type", "unix", "--sock-name", path],
        env={**os.environ, "PYTHONPATH": TS_FOLDER},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout, socket.socket(socket.AF_UNIX) as front_end:
        front_end.settimeout(30)
        assert process.stdout.readline() == f"[PID]{process.pid}\n"
        assert process.stdout.readline() == "Torch worker started.\n"
        front_end.connect(path)
        front_end.sendall(load_message(folder, "own.py") + batch_message("a"))
        _expect(front_end, number(200) + text("loaded model m") + END)
        _expect(front_end, reply(200, "Prediction success", result("r0", b"x")))
        front_end.close()
        assert process.wait(30) == 0


def test_an_asynchronous_service_answers_batches_as_they_are_done(tmp_path: Path) -> None:
    from ts.async_service import AsyncService
    from ts.service import Service

    first_may_end = threading.Event()

    async def handle(data: Any, context: Any) -> Any:
        if data[0]["body"] == "slow":
            await asyncio.to_thread(first_may_end.wait, 30)
        if data[0]["body"] == "bad":
            raise ValueError("x")
        return [f"{data[0]['body']} {context.get_request_id(0)}"]

    service = Service("m", "/d", {}, handle, None, 1)
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(30)
        service.set_cl_socket(here)
        thread = threading.Thread(target=AsyncService(service).run)
        thread.start()
        for body in ("slow", "quick", "bad"):
            there.sendall(batch_message(body))
            if body == "quick":
                _expect(there, reply(200, "Prediction success", result("r0", b"quick r0")))
        _expect(there, reply(503, "Prediction failed", result("r0", b"error", 503)))
        first_may_end.set()
        _expect(there, reply(200, "Prediction success", result("r0", b"slow r0")))
        there.shutdown(socket.SHUT_WR)
        thread.join(30)
        assert not thread.is_alive()


def _connect(sock: socket.socket, path: str) -> None:
    for _ in range(3000):
        try:
            return sock.connect(path)
        except OSError:
            threading.Event().wait(0.01)
    raise AssertionError(f"nobody listens at {path}")


def _expect(sock: socket.socket, wanted: bytes) -> None:
    got = b""
    while len(got) < len(wanted):
        more = sock.recv(len(wanted) - len(got))
        assert more, got
        got += more
    assert got == wanted


# ---------------------------------------------------------------- the smaller ones


def test_old_services_have_their_stages() -> None:
    from ts.model_service.model_service import ModelService, SingleNodeService

    class Stages(SingleNodeService):
        def _preprocess(self, data: Any) -> Any:
            return [row["data"] for row in data]

        def _inference(self, data: Any) -> Any:
            return [value + 1 for value in data]

    context = types.SimpleNamespace(manifest={}, system_properties={"model_dir": "/d"})
    service = Stages("m", "/d", {})
    service.initialize(context)
    assert service.handle([{"data": 1}], context) == [2]
    assert (service.ctx is context, service.ping(), service.signature()) == (True, None, None)
    assert ModelService("m", "/d", {}).handle([1], context) is None


def test_an_old_service_reads_its_signature(tmp_path: Path) -> None:
    from ts.model_service.model_service import ModelService

    (tmp_path / "s.json").write_text('{"inputs": []}')
    service = ModelService("m", str(tmp_path), {})
    manifest = {"Model": {"Signature": "s.json"}}
    service.initialize(types.SimpleNamespace(manifest=manifest, system_properties={"model_dir": str(tmp_path)}))
    assert service.signature() == {"inputs": []}


def test_command_lines_are_parsed_as_by_torchserve() -> None:
    from ts.arg_parser import ArgParser

    args = ArgParser.extract_args(["--start", "--models", "a=b.mar", "c.mar", "--ncs", "--dt", "--ppath", "p"])
    assert vars(args) == {
        "version": False,
        "start": True,
        "stop": False,
        "ts_config": None,
        "model_store": None,
        "workflow_store": None,
        "models": ["a=b.mar", "c.mar"],
        "log_config": None,
        "cpp_log_config": None,
        "foreground": False,
        "no_config_snapshots": True,
        "plugins_path": "p",
        "token_auth": True,
        "model_mode": False,
    }
    worker = ArgParser.model_service_worker_args().parse_args(["--sock-type", "tcp", "--port", "1", "--async"])
    assert (worker.sock_type, worker.port, worker.async_comm, worker.sock_name) == ("tcp", "1", True, None)
    with pytest.raises(SystemExit):
        ArgParser.ts_parser().parse_args(["--start", "--stop"])


def test_properties_files_are_read_as_they_stand(tmp_path: Path) -> None:
    from ts.model_server import TS_NAMESPACE, load_properties

    path = tmp_path / "p.properties"
    path.write_text("# c\na=b\n c = d e\nx\nf=1=2\n\nvmargs=-Xmx1g -Dk=v\n")
    assert load_properties(str(path)) == {"a": "b", "c": "d e", "f": "1=2", "vmargs": "-Xmx1g -Dk=v"}
    assert TS_NAMESPACE == "org.pytorch.serve.ModelServer"


@pytest.mark.slow
def test_the_model_server_is_the_command() -> None:
    code = "import sys, ts.model_server\nsys.argv[1:] = [sys.argv[1]]\nts.model_server.start()\nprint('on')\n"
    for flag, status, word in (("--version", 0, "zts "), ("--nonsense", 1, "")):
        done = subprocess.run(
            [sys.executable, "-c", code, flag],
            env={**os.environ, "PYTHONPATH": TS_FOLDER},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode != 0) == bool(status), done
        assert word in done.stdout and ("on" in done.stdout) == (not status)


def test_tokenizers_and_runs_of_words() -> None:
    from ts.handler_utils.text_utils import get_tokenizer, ngrams_iterator

    basic = get_tokenizer("basic_english")
    sentence = 'You can\'t (now) do it! "x"<br />a.b;c:d?e '
    assert " ".join(basic(sentence)) == "you can ' t ( now ) do it ! x a . b c d ? e"
    assert get_tokenizer(None)("a b,c") == ["a", "b,c"]
    assert get_tokenizer(str.split) is str.split
    assert list(ngrams_iterator(["a", "b", "c", "d"], 3))[4:] == ["a b", "b c", "c d", "a b c", "b c d"]
    for arguments in (("spacy",), ("basic_english", "de"), (5,)):
        with pytest.raises(ValueError, match=r"tokenizer|language"):
            get_tokenizer(*arguments)


def test_contractions_are_those_of_torchserve() -> None:
    from ts.torch_handler.contractions import CONTRACTION_MAP

    assert len(CONTRACTION_MAP) == 123
    chosen = ("I'd've", "y'all'd've", "shan't've", "what'll've", "who've", "so's")
    assert [CONTRACTION_MAP[word] for word in chosen] == [
        "I would have",
        "you all would have",
        "shall not have",
        "what will have",
        "who have",
        "so as",
    ]


def test_timeit_prints_how_long_a_call_took(capsys: pytest.CaptureFixture[str]) -> None:
    from ts.utils.timeit_decorator import timeit

    @timeit
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    assert (add(1, b=2), add.__name__, add.__doc__) == (3, "add", "Add.")
    assert capsys.readouterr().out.startswith("add took ")


def test_models_are_fetched_from_the_hub_with_the_package_that_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    hub: Any = types.ModuleType("huggingface_hub")
    hub.snapshot_download = lambda *args, **kwargs: asked.append((args, kwargs)) or "/cache/m"
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.delitem(sys.modules, "zts.workers.ts_compat.hf_utils", raising=False)
    from ts.utils.hf_utils import download_model

    assert download_model("org/m", "v1", "/cache", False) == "/cache/m"
    [(args, kwargs)] = asked
    assert args == ("org/m",)
    assert (kwargs["revision"], kwargs["cache_dir"], kwargs["token"]) == ("v1", "/cache", None)


@pytest.mark.slow
def test_an_environment_sees_the_packages_of_this_one(tmp_path: Path) -> None:
    from ts.utils.setup_model_venv import create_venv, inherit_site_packages

    folder = tmp_path / "venv"
    create_venv(str(folder))
    inherit_site_packages(str(folder))
    code = "import sys, yaml; print(sys.prefix)"
    command = [folder / "bin" / "python", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert Path(done.stdout.strip()) == folder
    with pytest.raises(FileNotFoundError, match="no virtual environment"):
        inherit_site_packages(str(tmp_path / "none"))


def test_the_smallest_model_finds_the_largest_value(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from ts.torch_handler.unit_tests.models.base_model import ArgmaxModel, save_pt_file

    assert ArgmaxModel()(torch.tensor([[1.0, 3.0], [9.0, 1.0]])).tolist() == [1, 0]
    save_pt_file(str(tmp_path / "m.pt"))
    ArgmaxModel().load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))


def test_an_onnx_session_is_made_for_a_place(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from ts.torch_handler.base_handler import ONNX_AVAILABLE, setup_ort_session

    shape = [None, 2]
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    session = setup_ort_session(str(tmp_path / "m.onnx"), "cpu")
    assert ONNX_AVAILABLE
    assert (session.get_providers(), session.get_inputs()[0].name) == (["CPUExecutionProvider"], "x")


def test_envelopes_may_be_made_anew_request_by_request() -> None:
    from ts.torch_handler.request_envelope.base import BaseEnvelope
    from ts.torch_handler.request_envelope.json import JSONEnvelope
    from ts.torch_handler.unit_tests.test_utils.mock_context import MockContext

    pytest.importorskip("torch")

    class Own(JSONEnvelope):
        def _from_json(self, data: Any) -> Any:
            return (data.get("data") or data.get("body"))["rows"]

        def _to_json(self, output: Any) -> Any:
            return json.dumps({"out": output})

    envelope = Own(lambda data, context: [value + 1 for value in data])
    assert envelope._batch_from_json([{"data": {"rows": [1, 2]}}, {"body": {"rows": [3]}}]) == ([2, 1], [1, 2, 3])
    assert envelope._batch_to_json([2, 3, 4], [2, 1]) == ['{"out": [2, 3]}', '{"out": [4]}']
    plain = JSONEnvelope(lambda data, context: [value.decode() for value in data])
    assert plain.handle([{"instances": [{"b64": "YQ=="}]}], MockContext()) == ['{"predictions": ["a"]}']
    with pytest.raises(TypeError, match="abstract"):
        BaseEnvelope(lambda data, context: data)
    assert MockContext().metrics is not None
