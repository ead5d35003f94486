"""The sample model's weights and handler: held-out accuracy, samples, and requests that are no digits.

The handler runs on stand-ins for the two ``ts`` modules it imports, so that
only its own code is under test. Skipped without torch, Pillow or scikit-learn.
"""

import base64
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

image_module = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.slow

SOURCES = Path(__file__).resolve().parents[2] / "model_store" / "digits"
ACCURACY_LINE = re.compile(r"held-out accuracy: [\d.]+ % \((\d+) of (\d+) images\)")


class StandInError(Exception):
    """Takes the place of ``PredictionException``."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code


class StandInClassifier:
    """Takes the place of ``ImageClassifier``: what ``preprocess`` may rely on."""

    device = "cpu"


def load_module(name: str) -> ModuleType:
    """Return a file of the sample model as a module that stays out of ``sys.modules``."""
    spec = importlib.util.spec_from_file_location(f"sample_digits_{name}", SOURCES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def torch() -> Any:
    """Return torch; imported here and not above, so that collecting the tests does not import it."""
    return pytest.importorskip("torch")


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch, torch: Any) -> Any:
    """Return the sample handler on stand-ins for ``ts``."""
    members: dict[str, dict[str, Any]] = {
        "ts": {},
        "ts.torch_handler": {},
        "ts.torch_handler.image_classifier": {"ImageClassifier": StandInClassifier},
        "ts.utils": {},
        "ts.utils.util": {"PredictionException": StandInError},
    }
    for name, attributes in members.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return load_module("handler").DigitsHandler()


@pytest.fixture(scope="module")
def model(torch: Any) -> Any:
    """Return the network with the committed weights."""
    network = load_module("model").DigitsNet()
    network.load_state_dict(torch.load(SOURCES / "digits.pt", map_location="cpu", weights_only=True))
    return network.eval()


def png(size: tuple[int, int], mode: str = "L") -> bytes:
    """Return a blank image file."""
    buffer = io.BytesIO()
    image_module.new(mode, size).save(buffer, format="PNG")
    return buffer.getvalue()


def sample(digit: int) -> bytes:
    """Return the sample image file of a digit."""
    return (SOURCES / "samples" / f"{digit}.png").read_bytes()


def test_committed_weights_name_98_of_100_held_out_images_right(torch: Any) -> None:
    pytest.importorskip("sklearn")
    command = [sys.executable, str(SOURCES / "evaluate.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    match = ACCURACY_LINE.search(done.stdout)
    assert match is not None, done.stdout
    correct, total = int(match[1]), int(match[2])
    assert total == 360
    assert correct / total >= 0.98
    assert match[0] in (SOURCES / "README.md").read_text(), "the README states another accuracy"


def test_every_sample_is_named_right(handler: Any, model: Any, torch: Any) -> None:
    batch = handler.preprocess([{"body": bytearray(sample(digit))} for digit in range(10)])
    with torch.inference_mode():
        assert model(batch).argmax(dim=1).tolist() == list(range(10))


def test_samples_are_held_out_images_to_the_pixel(handler: Any) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    selection = pytest.importorskip("sklearn.model_selection")
    dataset = load_module("dataset")
    images, labels = datasets.load_digits(return_X_y=True)
    _, held_out, _, digits = selection.train_test_split(
        images, labels, test_size=dataset.HELD_OUT_FRACTION, random_state=dataset.SPLIT_SEED, stratify=labels
    )
    for digit in range(10):
        pixels = handler.preprocess([{"data": sample(digit)}]).reshape(64).tolist()
        assert pixels in held_out[digits == digit].tolist()


def test_file_base64_and_pixel_list_give_the_same_batch(handler: Any, torch: Any) -> None:
    from_file = handler.preprocess([{"data": sample(7)}])
    rows = from_file[0, 0].tolist()
    same = handler.preprocess(
        [
            {"body": base64.b64encode(sample(7)).decode()},
            {"body": rows},
            {"data": [rows]},
            {"body": [value for row in rows for value in row]},
        ]
    )
    assert same.shape == (4, 1, 8, 8)
    assert same.dtype == torch.float32
    assert all(torch.equal(one, from_file[0]) for one in same)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (28, 28), (100, 37)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P"])
def test_image_of_any_size_and_mode_becomes_8x8(handler: Any, size: tuple[int, int], mode: str) -> None:
    assert handler.preprocess([{"body": png(size, mode)}]).tolist() == [[[[0.0] * 8] * 8]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The request is empty; send an image file"),
        (b"no image", "The request is not an image that can be read"),
        (sample(7)[:100], "The request is not an image that can be read"),
        (png((5000, 4000), "1"), "The image has 5000x4000 pixels; at most 16000000 are read"),
        ("not base64!", "The text is not a base64-encoded image"),
        ("\u00e9", "The text is not a base64-encoded image"),
        (base64.b64encode(b"no image").decode(), "The request is not an image that can be read"),
        ([], "The list has shape [0]; 8 rows of 8 numbers are needed"),
        ([[1, 2], [3]], "The list is not 8 rows of 8 numbers"),
        (["a"] * 64, "The list is not 8 rows of 8 numbers"),
        ([[0] * 7] * 8, "The list has shape [8, 7]; 8 rows of 8 numbers are needed"),
        ([[17] * 8] * 8, "A pixel value is not in the range from 0 to 16"),
        ([[float("nan")] * 8] * 8, "A pixel value is not in the range from 0 to 16"),
        (None, "Send an image file, or a list of 8 rows of 8 pixel values from 0 to 16"),
        ({"a": 1}, "Send an image file, or a list of 8 rows of 8 pixel values from 0 to 16"),
    ],
)
def test_request_without_a_digit_is_refused_with_400(handler: Any, content: object, message: str) -> None:
    with pytest.raises(StandInError) as caught:
        handler.preprocess([{"body": content}])
    assert (caught.value.message, caught.value.error_code) == (message, 400)
