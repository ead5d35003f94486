"""Every name that users' code imports from ``ts`` (TORCHSERVE.md 8.9): it works, or says why not."""

from __future__ import annotations

import http.server
import importlib
import io
import json
import os
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.handler_archives import job, load, restored_process, write_archive
from zts.errors import BrokerUnavailable, ConfigError, DownloadFailed
from zts.workers.handler.loader import LoadError


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_process():
        importlib.import_module("zts.compat")
        sys.modules["zts.workers.ts_compat"].install()
        yield


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "path",
    [
        "ts.torch_handler.base_handler.BaseHandler",
        "ts.torch_handler.image_classifier.ImageClassifier",
        "ts.torch_handler.image_segmenter.ImageSegmenter",
        "ts.torch_handler.object_detector.ObjectDetector",
        "ts.torch_handler.text_classifier.TextClassifier",
        "ts.torch_handler.text_handler.TextHandler",
        "ts.torch_handler.vision_handler.VisionHandler",
        "ts.torch_handler.densenet_handler.DenseNetHandler",
        "ts.torch_handler.unit_tests.test_utils.mock_context.MockContext",
        "ts.torch_handler.unit_tests.test_utils.model_dir.download_model",
        "ts.torch_handler.unit_tests.test_utils.model_dir.copy_files",
        "ts.torch_handler.request_envelope.base.BaseEnvelope",
        "ts.torch_handler.request_envelope.json.JSONEnvelope",
        "ts.context.Context",
        "ts.context.RequestProcessor",
        "ts.handler_utils.timer.timed",
        "ts.handler_utils.utils.send_intermediate_predict_response",
        "ts.handler_utils.utils.import_class",
        "ts.handler_utils.micro_batching.MicroBatching",
        "ts.utils.util.load_label_mapping",
        "ts.utils.util.map_class_to_label",
        "ts.utils.util.check_valid_pt2_backend",
        "ts.utils.util.CLEANUP_REGEX",
        "ts.utils.util.list_classes_from_module",
        "ts.utils.util.get_yaml_config",
        "ts.utils.util.PredictionException",
        "ts.utils.util.PT2Backend",
        "ts.utils.util.deprecated",
        "ts.service.PredictionException",
        "ts.metrics.dimension.Dimension",
        "ts.metrics.metric_type_enum.MetricTypes",
        "ts.metrics.metric.Metric",
        "ts.metrics.metrics_store.MetricsStore",
        "ts.metrics.caching_metric.CachingMetric",
        "ts.metrics.metric_cache_errors.MetricsCacheKeyError",
        "ts.metrics.metric_cache_yaml_impl.MetricsCacheYamlImpl",
        "ts.metrics.unit.Units",
        "ts.metrics.process_memory_metric.check_process_mem_usage",
        "ts.protocol.otf_message_handler.send_intermediate_predict_response",
        "ts.launcher.start",
        "ts.launcher.stop",
        "ts.launcher.register_model",
        "ts.launcher.register_model_with_params",
        "ts.version.__version__",
        "ts.__version__",
    ],
)
def test_a_name_of_torchserves_is_there(path: str) -> None:
    if ".torch_handler." in path:
        pytest.importorskip("torch")
    assert named(path) is not None


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("ts.torch_handler.dali_handler", "needs the package nvidia-dali, which is not installed here"),
        ("ts.torch_handler.dali_image_classifier", "needs the package nvidia-dali"),
        ("ts.torch_handler.vllm_handler", "needs the package vllm"),
        ("ts.torch_handler.trt_llm_handler", "needs the package tensorrt-llm"),
        ("ts.torch_handler.distributed.base_pippy_handler", "needs the package torchpippy"),
        ("ts.handler_utils.distributed.pt_pippy", "needs the package torchpippy"),
        ("ts.handler_utils.distributed.deepspeed", "No module named 'deepspeed'"),
        ("ts.llm_launcher", "zts does not provide .* yet .*'zts start'"),
        ("ts.nonsense", "that part of TorchServe is not provided"),
    ],
)
def test_a_name_that_is_not_provided_says_why(module: str, message: str) -> None:
    with pytest.raises(ImportError, match=message):
        importlib.import_module(module)


def test_with_its_package_a_name_says_that_zts_lacks_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pippy").mkdir()
    (tmp_path / "pippy" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"zts does not provide ts\.handler_utils\..* yet .*several processes"):
        importlib.import_module("ts.handler_utils.distributed.pt_pippy")


def test_a_model_is_put_into_deepspeeds_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    asked: list[Any] = []
    deepspeed: Any = types.ModuleType("deepspeed")
    deepspeed.init_inference = lambda *args, **kwargs: asked.append((args, kwargs)) or "engine"
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    monkeypatch.delitem(sys.modules, "zts.workers.ts_compat.deepspeed_engine", raising=False)
    get_ds_engine = named("ts.handler_utils.distributed.deepspeed.get_ds_engine")
    write_archive(tmp_path, {"ds.json": "{}", "weights/a.bin": "", "weights/deep/b.pt": "", "weights/c.txt": ""})

    def context(**section: str) -> Any:
        config = {"deepspeed": section, "handler": {"model_path": "weights"}}
        return named("ts.context.Context")("m", str(tmp_path), {}, 1, None, "1", model_yaml_config=config)

    handler = named("ts.torch_handler.distributed.base_deepspeed_handler.BaseDeepSpeedHandler")()
    handler.initialize(context(config="ds.json"))
    assert (handler.device, handler.model) == (0, None)
    assert get_ds_engine("model", context(config="ds.json", checkpoint="list.json")) == "engine"
    base = {"config": str(tmp_path / "ds.json"), "base_dir": "weights", "checkpoint": str(tmp_path / "list.json")}
    assert asked == [(("model",), base)]
    found = json.loads((tmp_path / "list.json").read_text())
    weights = [str(tmp_path / "weights" / name) for name in ("a.bin", "deep/b.pt")]
    assert found == {"type": "ds_model", "checkpoints": weights, "version": 1.0}
    with pytest.raises(ConfigError, match="needs 'deepspeed:"):
        get_ds_engine("model", context())
    with pytest.raises(ConfigError, match=r"none\.json, which .* is not in the archive"):
        get_ds_engine("model", context(config="none.json"))


def test_a_model_with_a_handler_whose_package_is_missing_names_that_package(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="needs the package vllm, which is not installed here"):
        load(write_archive(tmp_path, {}, handler="vllm_handler"))


def test_the_batch_streamer_needs_transformers_and_yields_each_prompts_new_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    for name in ("transformers", "transformers.generation", "transformers.generation.streamers"):
        module: Any = types.ModuleType(name)
        module.BaseStreamer = object
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "zts.workers.ts_compat.batch_streamer", raising=False)
    tokenizer = types.SimpleNamespace(decode=lambda tokens, **_: "".join(map(chr, tokens)).replace("~", "\ufffd"))
    streamer = named("ts.handler_utils.hf_batch_streamer.TextIteratorStreamerBatch")(tokenizer, 2, skip_prompt=True)
    streamer.put(torch.tensor([[1, 2], [3, 4]]))
    for step in ([97, 120], [98, 126], [99, 121]):
        streamer.put(torch.tensor(step))
    streamer.end()
    assert list(streamer) == [["a", "x"], ["b", ""], ["c", "\ufffdy"]]


def test_mock_context_has_torchserves_arguments(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "model-config.yaml").write_text("handler:\n  1: one\n")
    mock_context = named("ts.torch_handler.unit_tests.test_utils.mock_context.MockContext")
    context = mock_context(model_dir=tmp_path, model_name="m", model_yaml_config_file="model-config.yaml")
    assert context.model_yaml_config == {"handler": {1: "one"}}
    assert context.manifest == {"model": {"serializedFile": "model.pt", "modelFile": "model.py"}}
    assert context.system_properties["model_dir"] == str(tmp_path)
    assert context.get_request_header(0, "explain") is False
    context.explain = True
    assert context.get_request_header(0, "explain") is True
    assert mock_context().system_properties["model_dir"] == "ts/torch_handler/unit_tests/models/tmp"


def test_download_model_says_what_to_do_offline(tmp_path: Path) -> None:
    download_model = named("ts.torch_handler.unit_tests.test_utils.model_dir.download_model")
    with pytest.raises(DownloadFailed, match=r"model\.mar cannot be fetched .* Offline: put the file into"):
        download_model("http://127.0.0.1:9/model.mar", tmp_path)
    assert list(tmp_path.iterdir()) == []
    source = tmp_path / "here" / "model.mar"
    source.parent.mkdir()
    source.write_text("x")
    download_model(source.as_uri(), tmp_path)
    assert (tmp_path / "model.mar").read_text() == "x"


def test_process_memory_is_given_for_each_process_that_lives() -> None:
    check = named("ts.metrics.process_memory_metric.check_process_mem_usage")
    mine, none = check(io.StringIO(f"{os.getpid()},999999999\n"))
    assert int(mine.partition(":")[2]) > 1_000_000
    assert none == "999999999:0"


def test_the_launcher_registers_over_the_management_port(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Management(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(409 if "taken" in self.path else 200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok"}')

        def log_message(self, *args: Any) -> None: ...

    launcher = importlib.import_module("ts.launcher")
    with http.server.HTTPServer(("127.0.0.1", 0), Management) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(launcher, "MANAGEMENT_ADDRESS", f"http://127.0.0.1:{server.server_port}")
        answer = launcher.register_model("m", "m.mar")
        refused = launcher.register_model_with_params({"url": "taken.mar", "batch_size": None})
        server.shutdown()
        thread.join()
    assert asked == ["/models?model_name=m&url=m.mar&initial_workers=1&synchronous=true", "/models?url=taken.mar"]
    assert (answer.status_code, answer.json(), answer.ok) == (200, {"status": "ok"}, True)
    assert (refused.status_code, refused.ok) == (409, False)
    with pytest.raises(BrokerUnavailable, match="no server answers at"):
        launcher.register_model("m", "m.mar")


def test_micro_batches_know_their_number_and_describe_reaches_the_handler(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    text = """
from ts.torch_handler.base_handler import BaseHandler
from ts.handler_utils.micro_batching import MicroBatching
class Parts(BaseHandler):
    def initialize(self, context):
        self.handle = MicroBatching(self, micro_batch_size=2)
    def preprocess(self, data):
        return [self.handle.get_micro_batch_idx()] * len(data)
    def inference(self, data):
        return data
    def postprocess(self, data):
        return data
    def describe_handle(self):
        return "parts"
"""
    service = load(write_archive(tmp_path, {"own.py": text}, handler="own"))
    assert [row.body for row in service.run([job(n, b"") for n in range(5)])] == [b"0", b"0", b"1", b"1", b"2"]
    assert service.run([job(9, b"", describe="True")])[0].body == b"parts"
    assert "HandlerTime" in {name for known in service.context.metrics.cache.values() for name in known}
