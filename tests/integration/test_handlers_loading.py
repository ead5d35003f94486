"""How a handler is found, started and what is said when it cannot be (TORCHSERVE.md 8.1)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.handler_archives import job, load, restored_process, write_archive
from zts.workers.handler.loader import LoadError

FUNCTION = "def handle(data, context):\n    return None if data is None else [bytes(row['body']) for row in data]\n"
CLASS = """
class MyHandler:
    def initialize(self, context):
        self.word = context.model_yaml_config.get("word", "hi")
    def handle(self, data, context):
        return [self.word for _ in data]
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_process():
        yield


@pytest.mark.parametrize("handler", ["own", "own.py", "some/folder/own.py", "own.py:handle"])
def test_a_module_level_function_is_called_for_loading_and_for_batches(tmp_path: Path, handler: str) -> None:
    text = "loads = []\ndef handle(data, context):\n    loads.append(context.get_request_id())\n"
    text += "    return data and ['x']\n"
    service = load(write_archive(tmp_path, {"own.py": text}, handler=handler))
    assert service.run([job(1, b"")])[0].body == b"x"
    assert sys.modules["own"].loads == [None, "r1"]


def test_a_named_function_is_found(tmp_path: Path) -> None:
    text = "def predict(data, context):\n    return ['predicted'] * len(data or [])\n"
    assert load(write_archive(tmp_path, {"own.py": text}), "own:predict").run([job(1, b"")])[0].body == b"predicted"


def test_a_class_is_initialised_with_the_context(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"own.py": CLASS}, handler="own"), config={"word": "ho"})
    assert service.run([job(1, b"")])[0].body == b"ho"


def test_a_module_level_function_wins_over_a_class(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"own.py": CLASS + FUNCTION}, handler="own"))
    assert service.run([job(1, b"func")])[0].body == b"func"


def test_imported_classes_do_not_count(tmp_path: Path) -> None:
    text = "from pathlib import Path\nfrom collections import OrderedDict\n" + CLASS
    assert load(write_archive(tmp_path, {"own.py": text}, handler="own")).run([job(1, b"")])[0].body == b"hi"


def test_the_spec_overrides_the_manifests_handler(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, {"own.py": CLASS, "other.py": FUNCTION}, handler="own")
    assert load(archive, "other").run([job(1, b"other")])[0].body == b"other"


def test_the_model_folder_is_cwd_and_first_on_the_path(tmp_path: Path) -> None:
    text = "import os, sys, words\nSEEN = (os.getcwd(), sys.path[0])\n" + CLASS
    load(write_archive(tmp_path, {"own.py": text, "words.py": "X = 1"}, handler="own"))
    seen = sys.modules["own"].SEEN
    assert seen == (str(tmp_path), str(tmp_path))
    assert os.getcwd() == str(tmp_path)


def test_a_handlers_folder_is_in_front_of_the_models(tmp_path: Path) -> None:
    inner = "import words\ndef handle(data, context):\n    return data and [words.X]\n"
    files = {"code/own.py": inner, "code/words.py": "X = 'inner'", "own.py": FUNCTION, "words.py": "X = 'outer'"}
    service = load(write_archive(tmp_path, files, handler="code/own.py:handle"))
    assert service.run([job(1, b"outer")])[0].body == b"inner"
    assert sys.path[:2] == [str(tmp_path / "code"), str(tmp_path)]


def test_a_handler_may_have_the_name_of_a_module_of_pythons_own(tmp_path: Path) -> None:
    import queue

    service = load(write_archive(tmp_path, {"queue.py": FUNCTION}, handler="queue.py"))
    assert service.run([job(1, b"mine")])[0].body == b"mine"
    assert sys.modules["queue"] is queue


def test_the_archives_own_module_wins_over_a_built_in(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"image_classifier.py": FUNCTION}, handler="image_classifier"))
    assert service.run([job(1, b"mine")])[0].body == b"mine"


def test_context_knows_the_manifest_and_a_folder_without_one_has_none(tmp_path: Path) -> None:
    with_manifest = load(write_archive(tmp_path / "a", {"own.py": FUNCTION}, handler="own", serializedFile="w.pt"))
    assert with_manifest.context.manifest["model"]["serializedFile"] == "w.pt"  # type: ignore[index]
    assert load(write_archive(tmp_path / "b", {"own.py": FUNCTION}), "own").context.manifest is None


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "import torchvision.models\n",
            "import",
            "importing handler 'own' failed: the handler needs the package 'torchvision', which is not installed here "
            "(No module named 'torchvision')",
        ),
        (
            "from ts.torch_handler.image_classifier import Imagine\n",
            "import",
            "importing handler 'own' failed: cannot import name 'Imagine' from ",
        ),
        (
            "import ts.torch_handler.dali_handler\n",
            "import",
            "importing handler 'own' failed: ts.torch_handler.dali_handler needs the package nvidia-dali, which is not "
            "installed here",
        ),
        ("def broken(:\n", "other", "importing handler 'own' failed: SyntaxError: invalid syntax (own.py, line 1)"),
        (
            "X = 1\n",
            "value",
            "finding the class of handler 'own' failed: handler module 'own' defines neither a function 'handle' nor "
            "a class",
        ),
        (
            "class A:\n    def handle(self, data, context): pass\n",
            "value",
            "finding the class of handler 'own' failed: class A of handler module 'own' has no method 'initialize'",
        ),
        (
            CLASS + CLASS.replace("MyHandler", "Other"),
            "value",
            "finding the class of handler 'own' failed: handler module 'own' defines 2 classes that could be the "
            "handler (MyHandler, Other); only one may be",
        ),
        (
            "def handle(data, context):\n    raise KeyError('weights')\n",
            "other",
            "initialising function 'handle' of handler 'own' failed: KeyError: 'weights'",
        ),
        (
            "def handle(data, context):\n    raise RuntimeError('CUDA out of memory')\n",
            "memory",
            "initialising function 'handle' of handler 'own' failed: RuntimeError: CUDA out of memory",
        ),
        (
            "def handle(data, context):\n    exit(3)\n",
            "other",
            "initialising function 'handle' of handler 'own' failed: it called exit(3)",
        ),
    ],
)
def test_a_load_error_names_the_step_and_the_cause(tmp_path: Path, text: str, kind: str, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(write_archive(tmp_path, {"own.py": text}, handler="own"))
    assert caught.value.public_message.startswith(message)
    assert "\n" not in caught.value.public_message
    assert caught.value.kind == kind
    assert "Traceback" in caught.value.traceback_text


def test_a_handler_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="holds no module 'nowhere', and no built-in handler has that name"):
        load(write_archive(tmp_path, {}, handler="nowhere"))


@pytest.mark.parametrize("manifest", ["{oops", "[]"])
def test_a_broken_manifest_is_named(tmp_path: Path, manifest: str) -> None:
    write_archive(tmp_path, {"MAR-INF/MANIFEST.json": manifest})
    with pytest.raises(LoadError, match="MANIFEST"):
        load(tmp_path)


def test_an_archive_without_handler_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="names no handler"):
        load(write_archive(tmp_path, {}, serializedFile="w.pt"))


@pytest.mark.slow
def test_nothing_of_torch_is_imported_for_a_handler_that_needs_none(tmp_path: Path) -> None:
    text = "import ts\nfrom ts.context import Context\nfrom ts.utils.util import PredictionException\n"
    text += "import ts.torch_handler\nfrom ts.metrics.dimension import Dimension\n" + FUNCTION
    write_archive(tmp_path, {"own.py": text}, handler="own")
    code = (
        "import sys, pathlib\nfrom tests.integration.handler_archives import load\n"
        f"load(pathlib.Path({str(tmp_path)!r}))\n"
        "print(sys.modules['own'].ts.__version__, 'torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.split() == ["0.12.0", "False", "False"]


def test_ts_names_are_ours_even_where_a_torchserve_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zts.workers.handler.context
    import zts.workers.handler.results

    text = "import ts\nfrom ts.context import Context\nfrom ts.service import PredictionException\n" + FUNCTION
    installed = write_archive(tmp_path / "site", {"ts/__init__.py": "raise ImportError('the real one')"})
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    load(write_archive(tmp_path / "model", {"own.py": text}, handler="own"))
    own = sys.modules["own"]
    assert own.Context is zts.workers.handler.context.Context
    assert own.PredictionException is zts.workers.handler.results.PredictionException
    assert own.ts.utils.util.CLEANUP_REGEX.sub("", "<b>x") == "x"
    assert zts.workers.handler.context.__spec__ is not None
    assert zts.workers.handler.context.__spec__.name == "zts.workers.handler.context"


def test_a_new_style_handler_answers_each_request_on_its_own(tmp_path: Path) -> None:
    text = """
import zts
class Double(zts.Handler):
    def load(self, context):
        self.factor = context.model_yaml_config["factor"]
    def predict(self, inputs):
        if "all" in inputs:
            raise zts.errors.RequestTooLarge("too many for one batch")
        return [item * self.factor if item != "bad" else zts.errors.BadRequest("this one is bad") for item in inputs]
"""
    service = load(write_archive(tmp_path, {"own.py": text}, handler="own"), config={"factor": 2})
    results = service.run([job(1, b"a", "text/plain"), job(2, b"bad", "text/plain"), job(3, b"3", "application/json")])
    assert [(row.status, row.body) for row in results] == [(200, b"aa"), (400, b"this one is bad"), (200, b"6")]
    results = service.run([job(1, b"a", "text/plain"), job(2, b"all", "text/plain")])
    assert [(row.status, row.body) for row in results] == [(200, b"aa"), (413, b"too many for one batch")]


def test_numbers_and_dates_of_the_models_configuration_stay_what_they_are(tmp_path: Path) -> None:
    files = {"own.py": CLASS, "my.yaml": "word: 2024-02-01\n1: one\n"}
    service = load(write_archive(tmp_path, files, handler="own", configFile="my.yaml"), config={"word": "of the spec"})
    assert service.context.model_yaml_config[1] == "one"
    assert service.context.model_yaml_config["word"].year == 2024


def test_a_configuration_that_is_no_yaml_is_a_load_error(tmp_path: Path) -> None:
    files = {"own.py": CLASS, "my.yaml": "a: [1\n"}
    with pytest.raises(LoadError, match=r"my\.yaml is no valid YAML"):
        load(write_archive(tmp_path, files, handler="own", configFile="my.yaml"))
