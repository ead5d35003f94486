"""Numbers of the ready-made handlers, against values worked out here from the formulas or noted from TorchServe."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.integration.handler_archives import job, load, restored_process, write_archive

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")
image_module = pytest.importorskip("PIL.Image")

MEAN = numpy.array([0.485, 0.456, 0.406])
STD = numpy.array([0.229, 0.224, 0.225])


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_process():
        yield


def photo(width: int, height: int, seed: int = 0) -> Any:
    pixels = numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return image_module.fromarray(pixels)


def imagenet(image: Any) -> Any:
    """Resize the shorter side to 256, crop the middle 224 x 224, scale to 0…1, normalise: [3, 224, 224]."""
    width, height = image.size
    shorter = min(width, height)
    # The longer side is cut to whole pixels, not rounded.
    size = (256 * width // shorter, 256 * height // shorter)
    image = image.resize(size, image_module.Resampling.BILINEAR)
    left, top = (round((length - 224) / 2) for length in size)
    pixels = numpy.asarray(image, dtype=numpy.float64)[top : top + 224, left : left + 224]
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(300, 260), (260, 300), (256, 256), (400, 257), (97, 64), (1000, 333)])
def test_classifier_pixels_are_those_of_the_formula(size: tuple[int, int]) -> None:
    from zts.workers.torch_handler.image_transforms import classifier_transform

    image = photo(*size)
    assert classifier_transform()(image).numpy() == pytest.approx(imagenet(image), abs=1e-5)


@pytest.mark.parametrize(("length", "first"), [(223, 0), (222, 1), (221, 1), (220, 2), (225, 0), (227, 2)])
def test_crops_of_odd_differences_begin_where_torchvision_begins(length: int, first: int) -> None:
    from zts.workers.torch_handler.image_transforms import center_cropped

    column = image_module.fromarray(numpy.arange(1, length + 1, dtype=numpy.uint8)[:, None].repeat(224, axis=1))
    seen = numpy.asarray(center_cropped(column, 224))[:, 0].tolist()
    if length < 224:
        assert seen.index(1) == first
    else:
        assert seen[0] == first + 1


def test_classifier_answers_softmax_of_the_five_best() -> None:
    from zts.workers.torch_handler.image_classifier import ImageClassifier

    handler = ImageClassifier()
    logits = [1.0, 2.0, 0.0, -1.0, -2.0, 0.5]
    total = sum(map(math.exp, logits))
    best = sorted(range(6), key=lambda index: -logits[index])[:5]
    (answer,) = handler.postprocess(torch.tensor([logits]))
    assert list(answer) == [str(index) for index in best]
    assert list(answer.values()) == pytest.approx([math.exp(logits[index]) / total for index in best], abs=1e-6)
    # TorchServe 0.12, same logits.
    assert answer["1"] == pytest.approx(0.5572745203971863, abs=1e-7)
    handler.set_max_result_classes(2)
    assert (handler.get_max_result_classes(), len(handler.postprocess(torch.tensor([logits]))[0])) == (2, 2)


def test_segmenter_answers_class_and_probability_of_each_pixel() -> None:
    from zts.workers.torch_handler.image_segmenter import ImageSegmenter

    out = torch.tensor([[[[1.0, 2.0]], [[0.0, 5.0]]]])
    # TorchServe 0.12, same scores.
    expected = [[[[0.0, 0.7310585975646973], [1.0, 0.9525741338729858]]]]
    assert numpy.array(ImageSegmenter().postprocess({"out": out})) == pytest.approx(numpy.array(expected), abs=1e-6)


def test_detector_answers_boxes_from_the_threshold_up() -> None:
    from zts.workers.torch_handler.object_detector import ObjectDetector

    handler = ObjectDetector()
    handler.mapping = {"1": "person", "2": "bike"}
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 1.0, 1.0]])
    found = [{"boxes": boxes, "labels": torch.tensor([1, 2, 1]), "scores": torch.tensor([0.9, 0.5, 0.2])}]
    assert handler.postprocess(found) == [
        [
            {"person": [1.0, 2.0, 3.0, 4.0], "score": pytest.approx(0.9)},
            {"bike": [5.0, 6.0, 7.0, 8.0], "score": 0.5},
        ]
    ]


def test_text_is_cleaned_as_torchserve_does() -> None:
    from zts.workers.torch_handler.text_handler import TextHandler, cleaned, expanded, ngrams_iterator

    words = cleaned("<b>Hello</b>, It's a  café! Don't stop.")
    assert words == ["hello", "it", "is", "a", "cafe", "do", "not", "stop"]
    runs = list(ngrams_iterator(words, 2))
    assert runs[8:] == ["hello it", "it is", "is a", "a cafe", "cafe do", "do not", "not stop"]
    assert cleaned("fish &amp; chips &#233; &#xe9; &nosuch") == ["fish", "chips", "nosuch"]
    handler = TextHandler()
    assert handler._tokenize("It's a b. c") == ["it", "'", "s", "a", "b", ".", "c"]
    assert expanded("I can't won't isn't I'm you're he'd they've She'll y'all ain't let's it's John's") == (
        "I cannot will not is not I am you are he would they have She will you all as not let us it is Johns"
    )
    assert (expanded("CAN'T"), expanded("o'clock"), expanded("couldn't've")) == (
        "Cannot",
        "of the clock",
        "could not have",
    )


def test_text_classifier_gives_the_models_indexes_and_softmax() -> None:
    from zts.workers.torch_handler.text_classifier import TextClassifier

    handler = TextClassifier()
    handler.device = torch.device("cpu")
    handler.source_vocab = {"<unk>": 0, "good": 1, "movie": 2, "good movie": 3}
    indexes, offsets = handler.preprocess([{"data": b"Good movie!"}, {"body": "bad"}])
    assert (indexes.tolist(), offsets.tolist()) == ([1, 2, 3, 0], [0, 3])
    (answer,) = handler.postprocess(torch.tensor([[1.0, 2.0, 3.0]]))
    total = sum(map(math.exp, (1, 2, 3)))
    assert answer == {str(index): pytest.approx(math.exp(index + 1) / total, abs=1e-6) for index in range(3)}


def test_insights_are_integrated_gradients_in_15_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from zts.workers.torch_handler.vision_handler import VisionHandler

    captum = pytest.importorskip("captum.attr")
    assert captum

    class Net(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return torch.stack([x.pow(2).sum((1, 2, 3)), x.sum((1, 2, 3))], 1)

    handler = VisionHandler()
    handler.model = Net()
    pixels = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    # The gradient of x² from 0 to x adds up to x².
    assert handler.get_insights(pixels, None, 0)[0][0] == [pytest.approx([1.0, 4.0]), pytest.approx([9.0, 16.0])]


def test_insights_without_captum_are_a_failed_prediction(tmp_path: Path) -> None:
    text = "import torch\nclass Mean(torch.nn.Module):\n    def forward(self, x):\n        return x.mean(dim=(2, 3))\n"
    service = load(write_archive(tmp_path, {"model.py": text}, handler="image_classifier", modelFile="model.py"))
    buffer = io.BytesIO()
    photo(300, 260).save(buffer, "PNG")
    import importlib.util

    if importlib.util.find_spec("captum") is not None:
        pytest.skip("captum is installed")
    assert service.run([job(1, buffer.getvalue(), explain="True")])[0].status == 503


def test_an_onnx_session_is_run_like_a_model() -> None:
    from zts.workers.torch_handler.base_handler import BaseHandler

    class Session:
        def get_inputs(self) -> list[Any]:
            return [SimpleNamespace(name="pixels")]

        def run(self, outputs: None, inputs: dict[str, Any]) -> list[Any]:
            return [inputs["pixels"] * 2]

    handler = BaseHandler()
    handler.device = torch.device("cpu")
    handler.model = Session()
    assert handler.postprocess(handler.inference(torch.tensor([[1.0, 2.0]]))) == [[2.0, 4.0]]


def test_profiling_writes_a_trace_and_answers_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "true")
    text = f"""
import torch
from ts.torch_handler.base_handler import BaseHandler
class Numbers(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        self.profiler_args = {{
            "activities": [torch.profiler.ProfilerActivity.CPU],
            "on_trace_ready": lambda profile: profile.export_chrome_trace({str(tmp_path / "trace.json")!r}),
        }}
    def preprocess(self, data):
        return torch.tensor([row["body"] for row in data])
"""
    model = "import torch\nclass Twice(torch.nn.Module):\n    def forward(self, x):\n        return x * 2\n"
    service = load(write_archive(tmp_path, {"own.py": text, "model.py": model}, handler="own", modelFile="model.py"))
    assert b"2.0" in bytes(service.run([job(1, b"[1.0]", "application/json")])[0].body)
    assert "preprocess" in (tmp_path / "trace.json").read_text()
