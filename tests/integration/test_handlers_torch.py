"""The ready-made handlers and the rest of the ``ts`` names, with real models."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.handler_archives import job, load, restored_process, write_archive
from zts.wire.heads import VALUE, JobHead, pack_job_head, unpack_result_head
from zts.wire.messages import WorkItem
from zts.wire.values import decode_value, encode_value
from zts.workers.handler.loader import LoadError

torch = pytest.importorskip("torch")
image_module = pytest.importorskip("PIL.Image")

DOUBLE = """
import torch
class Double(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))
    def forward(self, x):
        return x * self.factor
"""
COLOURS = """
import torch
class Colours(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)) * 4
"""
NUMBERS = """
import torch
from ts.torch_handler.base_handler import BaseHandler
class Numbers(BaseHandler):
    def preprocess(self, data):
        return torch.tensor([row["body"] for row in data], device=self.device)
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    with restored_process():
        yield
    torch.set_num_threads(threads)


def picture(colour: Any, mode: str = "RGB", size: tuple[int, int] = (300, 260)) -> bytes:
    buffer = io.BytesIO()
    image_module.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def json_answers(service: Any, *items: WorkItem) -> list[Any]:
    return [json.loads(bytes(result.body)) for result in service.run(items)]


def test_eager_model_is_loaded_with_its_weights(tmp_path: Path) -> None:
    write_archive(
        tmp_path, {"model.py": DOUBLE, "own.py": NUMBERS}, handler="own", modelFile="model.py", serializedFile="w.pt"
    )
    torch.save({"factor": torch.tensor(3.0)}, tmp_path / "w.pt")
    service = load(tmp_path)
    assert json_answers(service, job(1, b"[1, 2]", "application/json"), job(2, b"[3, 4]", "application/json")) == [
        [3.0, 6.0],
        [9.0, 12.0],
    ]
    assert "HandlerTime" in {name for known in service.context.metrics.cache.values() for name in known}


def test_torchscript_model_is_loaded(tmp_path: Path) -> None:
    write_archive(tmp_path, {"own.py": NUMBERS}, handler="own", serializedFile="w.pt")
    with pytest.warns(DeprecationWarning):
        torch.jit.trace(lambda x: x + 1, torch.zeros(1, 2)).save(str(tmp_path / "w.pt"))
        service = load(tmp_path)
    assert json_answers(service, job(1, b"[1.0, 2.0]", "application/json")) == [[2.0, 3.0]]


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path, {"model.py": DOUBLE}, handler="base_handler", modelFile="model.py", serializedFile="w.pt")
    torch.save({"factor": Path("x")}, tmp_path / "w.pt")
    with pytest.raises(LoadError, match=r"w\.pt holds more than tensors"):
        load(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("files", "entries", "message"),
    [
        ({}, {"modelFile": "model.py"}, "Missing the model.py file"),
        ({"model.py": DOUBLE + COLOURS}, {"modelFile": "model.py"}, "Expected only one class as model definition"),
        ({"model.py": DOUBLE}, {"modelFile": "model.py", "serializedFile": "w.pt"}, "'w.pt' that the manifest names"),
        ({}, {"serializedFile": "w.pt"}, "'w.pt' that the manifest names is not in the archive"),
        ({"w.pt": "x"}, {"serializedFile": "w.pt"}, "w.pt is no TorchScript file"),
        ({"w.bin": "x"}, {"serializedFile": "w.bin"}, "No model weights could be loaded"),
        ({}, {}, "No model weights could be loaded"),
        ({"w.onnx": "x"}, {"serializedFile": "w.onnx"}, "needs the package 'onnxruntime'"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(
    tmp_path: Path, files: dict[str, str], entries: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"  # as if onnxruntime were not installed
    hidden.mkdir()
    (hidden / "onnxruntime.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    )
    monkeypatch.syspath_prepend(str(hidden))
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(LoadError, match=message):
        load(write_archive(tmp_path / "model", files, handler="base_handler", **entries))


def test_onnx_model_is_loaded_and_run(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    one = onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1.0])
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["rows", 2]) for n in ("x", "y")]
    node = onnx.helper.make_node("Add", ["x", "one"], ["y"])
    graph = onnx.helper.make_graph([node], "add", ends[:1], ends[1:], [one])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "w.onnx"))
    write_archive(tmp_path, {"own.py": NUMBERS}, handler="own", serializedFile="w.onnx")
    service = load(tmp_path)
    assert json_answers(service, job(1, b"[1.0, 2.0]", "application/json")) == [[2.0, 3.0]]


def test_image_classifier_answers_the_likeliest_labels(tmp_path: Path) -> None:
    labels = {"0": "red", "1": ["n1", "green"], "2": "blue"}
    files = {"model.py": COLOURS, "index_to_name.json": json.dumps(labels)}
    service = load(write_archive(tmp_path, files, handler="image_classifier", modelFile="model.py"))
    text = base64.b64encode(picture((0, 255, 0))).decode()
    answers = json_answers(
        service,
        job(1, picture((255, 0, 0))),
        job(2, json.dumps(text).encode(), "application/json"),
        job(3, picture((0, 0, 255, 255), "RGBA", (224, 900))),
        job(4, picture(255, "L", (10, 10))),
    )
    assert [next(iter(answer)) for answer in answers[:3]] == ["red", "green", "blue"]
    assert all(sum(answer.values()) == pytest.approx(1) for answer in answers)


def test_a_bad_image_does_not_hurt_the_others_of_its_batch(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"model.py": COLOURS}, handler="image_classifier", modelFile="model.py"))
    good, bad = service.run([job(1, picture((255, 0, 0))), job(2, b"no picture")])
    assert good.status == 200
    assert (bad.status, bad.body) == (400, b"The request is not an image that can be read")


def test_classifier_transform_gives_torchvisions_numbers() -> None:
    from zts.workers.torch_handler.image_transforms import classifier_transform, resized

    image = image_module.new("RGB", (300, 260), (255, 127, 0))
    assert resized(image, 256).size == (295, 256)
    pixels = classifier_transform()(image)
    assert tuple(pixels.shape) == (3, 224, 224)
    expected = [(1 - 0.485) / 0.229, (127 / 255 - 0.456) / 0.224, -0.406 / 0.225]
    assert pixels[:, 100, 100].tolist() == pytest.approx(expected, abs=1e-5)


def test_object_detector_answers_likely_boxes(tmp_path: Path) -> None:
    text = """
import torch
class Boxes(torch.nn.Module):
    def forward(self, x):
        boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 0]), "scores": torch.tensor([0.75, 0.25])} for _ in x]
"""
    files = {"model.py": text, "index_to_name.json": '{"object_type_names": ["sky", "cat"]}'}
    service = load(write_archive(tmp_path, files, handler="object_detector", modelFile="model.py"))
    assert json_answers(service, job(1, picture((9, 9, 9)))) == [[{"cat": [1.0, 2.0, 3.0, 4.0], "score": 0.75}]]


def test_image_segmenter_answers_a_class_for_each_pixel(tmp_path: Path) -> None:
    text = "import torch\nclass S(torch.nn.Module):\n    def forward(self, x):\n"
    text += "        return {'out': x[:, :, :2, :1] * 0}\n"
    service = load(write_archive(tmp_path, {"model.py": text}, handler="image_segmenter", modelFile="model.py"))
    assert json_answers(service, job(1, picture((9, 9, 9)))) == [[[[0.0, pytest.approx(1 / 3)]]] * 2]


def test_text_classifier_counts_words_and_pairs(tmp_path: Path) -> None:
    text = """
import torch
class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = torch.nn.EmbeddingBag.from_pretrained(torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]))
    def forward(self, indexes, offsets):
        return self.bag(indexes, offsets)
"""
    files = {"model.py": text, "index_to_name.json": '{"0": "good", "1": "bad"}'}
    write_archive(tmp_path, files, handler="text_classifier", modelFile="model.py")
    torch.save({"<unk>": 0, "nice": 1, "not nice": 2, "awful": 2}, tmp_path / "source_vocab.pt")
    answers = json_answers(load(tmp_path), job(1, b"<b>Nice!</b>", "text/plain"), job(2, b"awful"))
    assert answers[0]["good"] > 0.99
    assert answers[1]["bad"] > 0.99


def test_tensors_travel_raw_to_direct_clients_and_saved_over_rest(tmp_path: Path) -> None:
    text = "def handle(data, context):\n    return data and [row['body'] * 2 for row in data]\n"
    service = load(write_archive(tmp_path, {"own.py": text}, handler="own"))
    value = encode_value(torch.tensor([1.0, 2.0]))
    head = JobHead(kind=VALUE, encoding=value.encoding, dtype=value.dtype, shape=value.shape)
    body = bytes(value.body)
    typed_head = JobHead(kind=VALUE, encoding=value.encoding, dtype=value.dtype, shape=value.shape, typed=True)
    rest, typed = service.run(
        [WorkItem(1, 0, pack_job_head(head), body), WorkItem(2, 0, pack_job_head(typed_head), body)]
    )
    assert torch.load(io.BytesIO(rest.body), weights_only=True).tolist() == [2.0, 4.0]
    out = unpack_result_head(typed.head)
    assert decode_value(out.encoding, out.dtype, out.shape, typed.body).tolist() == [2.0, 4.0]  # type: ignore[attr-defined]


def test_pt2_compiles_with_a_known_backend_only(tmp_path: Path) -> None:
    files = {"model.py": DOUBLE, "own.py": NUMBERS}
    write_archive(tmp_path, files, handler="own", modelFile="model.py")
    unknown = load(tmp_path, config={"pt2": "warp_drive"})
    assert json_answers(unknown, job(1, b"[1.0]", "application/json")) == [[2.0]]
    eager = load(tmp_path, config={"pt2": {"compile": {"enable": True, "backend": "eager"}}})
    assert json_answers(eager, job(1, b"[1.0]", "application/json")) == [[2.0]]
    assert type(eager._handler.model).__name__ == "OptimizedModule"  # type: ignore[attr-defined]
    assert type(unknown._handler.model).__name__ == "Double"  # type: ignore[attr-defined]


def test_explain_and_describe_headers_reach_their_methods(tmp_path: Path) -> None:
    text = NUMBERS + (
        "    def get_insights(self, tensor, inputs, target):\n        return [{'inputs': inputs, 'target': target}]\n"
        "    def describe_handle(self):\n        return {'about': 'numbers'}\n"
    )
    service = load(write_archive(tmp_path, {"model.py": DOUBLE, "own.py": text}, handler="own", modelFile="model.py"))
    assert json_answers(service, job(1, b"[1.0]", "application/json", explain="True")) == [
        {"inputs": [1.0], "target": 0}
    ]
    assert json_answers(service, job(2, b"[1.0]", "application/json", describe="True")) == [{"about": "numbers"}]


def test_explain_without_insights_is_prediction_failed(tmp_path: Path) -> None:
    service = load(
        write_archive(tmp_path, {"model.py": DOUBLE, "own.py": NUMBERS}, handler="own", modelFile="model.py")
    )
    result = service.run([job(1, b"[1.0]", "application/json", explain="True")])[0]
    assert (result.status, result.body) == (503, b"Prediction failed")


def test_micro_batching_keeps_the_order(tmp_path: Path) -> None:
    text = """
from ts.handler_utils.micro_batching import MicroBatching
class Parts:
    def initialize(self, context):
        self.sizes = []
        self.micro = MicroBatching(self, micro_batch_size=2, parallelism={"preprocess": 2, "postprocess": 2})
        self.handle = self.micro
    def preprocess(self, data):
        self.sizes.append(len(data))
        return [bytes(row["body"]) for row in data]
    def inference(self, data):
        if b"bad" in data:
            raise ValueError("bad")
        return [item.upper() for item in data]
    def postprocess(self, data):
        return data
    def handle(self, data, context):
        raise AssertionError("replaced")
    def close(self):
        self.micro.shutdown()
"""
    service = load(write_archive(tmp_path, {"own.py": text}, handler="own"))
    assert [row.body for row in service.run([job(n, b"abcde"[n : n + 1]) for n in range(5)])] == [
        b"A",
        b"B",
        b"C",
        b"D",
        b"E",
    ]
    assert sorted(service._handler.sizes) == [1, 2, 2]  # type: ignore[attr-defined]
    assert {row.body for row in service.run([job(1, b"a"), job(2, b"b"), job(3, b"bad")])} == {b"Prediction failed"}
    service.close()


def test_stages_are_timed_where_the_model_asks_for_it(tmp_path: Path) -> None:
    write_archive(tmp_path, {"model.py": DOUBLE, "own.py": NUMBERS}, handler="own", modelFile="model.py")
    service = load(tmp_path, config={"handler": {"profile": True}})
    service.run([job(1, b"[1.0]", "application/json")])
    names = {name for known in service.context.metrics.cache.values() for name in known}
    assert {"ts_handler_inference", "ts_handler_postprocess", "HandlerTime"} <= names


def test_mock_context_drives_a_handler_as_upstreams_tests_do(tmp_path: Path) -> None:
    from zts.workers import ts_compat

    ts_compat.install()
    from ts.torch_handler.base_handler import BaseHandler
    from ts.torch_handler.unit_tests.test_utils.mock_context import MockContext

    write_archive(tmp_path, {"double_model.py": DOUBLE})
    context = MockContext(model_pt_file=None, model_dir=str(tmp_path), model_file="double_model.py")
    handler = BaseHandler()
    handler.initialize(context)
    assert handler.handle(torch.tensor([[1.0], [2.0]]), context) == [[2.0], [4.0]]


def test_label_helpers(tmp_path: Path) -> None:
    from zts.workers.ts_compat import names
    from zts.workers.ts_compat.streaming import import_class

    assert names.map_class_to_label([[0.5, 0.25]]) == [{"0": 0.5, "1": 0.25}]
    assert names.map_class_to_label([[0.5]], {"3": "cat"}, [[3]]) == [{"cat": 0.5}]
    assert names.check_valid_pt2_backend("inductor")
    assert not names.check_valid_pt2_backend("nonsense")
    assert names.load_label_mapping(str(tmp_path / "none.json")) is None
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"bad\.json"):
        names.load_label_mapping(str(tmp_path / "bad.json"))
    assert import_class("pathlib.Path") is Path
    assert import_class("Path", "pathlib") is Path
    with pytest.raises(ImportError, match="Nowhere"):
        import_class("pathlib.Nowhere")
    with pytest.warns(PendingDeprecationWarning, match="old is deprecated since 1"):

        @names.deprecated("1", "new")
        def old() -> None: ...

        old()


@pytest.mark.parametrize("prepared", ["nothing", "ours", "open", "link"])
def test_the_profilers_folder_is_one_that_no_other_user_prepared(
    prepared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zts.workers.torch_handler import base_handler

    monkeypatch.setattr(base_handler.tempfile, "tempdir", str(tmp_path))
    usual = tmp_path / "pytorch_profiler"
    if prepared == "link":
        (tmp_path / "elsewhere").mkdir()
        usual.symlink_to(tmp_path / "elsewhere")
    elif prepared != "nothing":
        usual.mkdir()
        usual.chmod(0o777 if prepared == "open" else 0o700)
    folder = Path(base_handler._profiler_folder("../my model"))
    assert (folder.parent == usual) == (prepared in ("nothing", "ours"))
    assert folder.name == ".._my model"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
