"""Small inputs that ask for much: patterns that try every way, images, files without end, depth over REST."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.http_service import serving
from zts.regular_file import MAX_TEXT_BYTES, read_json, read_regular

# Seconds of processor time for all inputs of one function below, each of 400,000 characters: linear ones take some
# seconds on a slow machine. One that takes the square of its length would take many minutes; the kernel ends it.
_CPU_S = 200
_READERS = """
import re, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1])))
MANY = 400_000

def times(piece, before="", behind=""):
    return before + piece * (MANY // len(piece)) + behind

PIECES = [*"a1 <>&';,.:|#=[]-%{/é", '"', "\\t", "\\n", "\\r\\n", "--", "\\\\", "$$", ".:", " .:", "a'", "&a", ";a=",
          ';a="', ';a="\\\\', "<!--", "<!---->", "|#", "a,", "/a", "x=", "&#1"]

def forms(text):
    from zts.errors import ZtsError
    from zts.http.forms import boundary_of, form_parts, multipart_parts
    boundary_of("multipart/form-data" + text)
    boundary_of("multipart/form-data; boundary=" + text)
    data = text.encode()
    head = b'--b\\r\\nContent-Disposition: form-data; name="a"'
    whole = head + b"\\r\\n\\r\\n" + data + b"\\r\\n--b--"
    url_encoded = "application/x-www-form-urlencoded"
    for body in (data, b"--b" + data, head + data, whole, b"--b\\r\\n" + data + b"\\r\\n\\r\\n"):
        for kind in ("multipart/form-data; boundary=b", url_encoded):
            try:
                form_parts(kind, body)
            except ZtsError:
                pass

def metric_lines(text):
    from zts.metrics.lines import PREFIX, Measurement, format_line, parse_line
    for line in (text, PREFIX + text + "|", PREFIX + "A.ms:1" + text, PREFIX + "A.ms:1|#" + text + "|",
                 PREFIX + "A.ms:1|#D:x|#type:GAUGE|#hostname:h,17," + text + "|"):
        parse_line(line)
    format_line(Measurement(text, text, 1.0, ((text, text),)), 1, "h")

def texts(text):
    from zts.workers.torch_handler.text_handler import cleaned
    from zts.workers.ts_compat.text_utils import get_tokenizer
    cleaned(text)
    get_tokenizer("basic_english")(text)

def requirements(text):
    import hashlib
    from zts.errors import ZtsError
    from zts.workers.node.requirements import add_content, check_wheels_only
    folder = Path(sys.argv[3])
    for content in (text, "a" + text + "/", "a[x]" + text + "/", "a " + text + "@"):
        (folder / "requirements.txt").write_text(content)
        add_content(hashlib.sha256(), folder / "requirements.txt", folder, {})
        try:
            check_wheels_only(folder / "requirements.txt")
        except ZtsError as exc:
            assert len(exc.public_message) < 2000

def files(text):
    from zts.archive.content import what_it_is
    path = Path(sys.argv[3], "m.mar")
    for content in (text, "\\n" + text, "<!--" + text):
        path.write_text(content)
        what_it_is(path)

def properties(text):
    from zts.errors import ZtsError
    from zts.config.properties import fill_variables, parse_properties
    parse_properties("a=" + text)
    parse_properties(text)
    try:
        fill_variables(text, {})
    except ZtsError:
        pass

def heads(text):
    from zts.http.parsing import query_parameters, segments_of, spelled_headers
    from zts.visible import visible
    from zts.workers.node.source_rules import is_url
    segments_of("/" + text)
    spelled_headers(text.encode("latin-1"))
    visible(text)
    is_url(text)

for piece in PIECES:
    globals()[sys.argv[2]](times(piece))
print("done")
"""


@pytest.mark.parametrize("reader", ["forms", "metric_lines", "texts", "requirements", "files", "properties", "heads"])
def test_time_grows_with_the_length_of_a_text_and_not_with_its_square(tmp_path: Path, reader: str) -> None:
    if reader == "texts":
        pytest.importorskip("torch")
    command = [sys.executable, "-c", _READERS, str(_CPU_S), reader, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.stdout, child.returncode) == ("done\n", 0), child.stderr[-2000:]


# ---------------------------------------------------------------- images


def png(width: int, height: int) -> bytes:
    """Return a file that says it has so many pixels; its data are those of one line."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    line = zlib.compress(b"\0" + bytes(3 * width))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", line) + chunk(b"IEND", b"")


_IMAGES = """
import resource, sys, warnings
from pathlib import Path
import torch
from PIL import Image
from zts.workers.handler.results import PredictionException
from zts.workers.torch_handler.vision_handler import VisionHandler
warnings.simplefilter("error")
handler = VisionHandler()
handler.device = torch.device("cpu")
content = sys.stdin.buffer.read()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 128 * 1024**2,) * 2)
try:
    handler.preprocess([{"body": content}])
except PredictionException as exc:
    print(exc.error_code, exc.message)
print(Image.MAX_IMAGE_PIXELS)
"""


@pytest.mark.parametrize("size", [(10_000, 9_000), (13_000, 13_000), (60_000, 60_000)])
def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("PIL")
    content = png(*size)
    child = subprocess.run([sys.executable, "-c", _IMAGES], input=content, capture_output=True, check=False)
    said = child.stdout.decode()
    assert said.startswith("400 The request is an image of "), child.stderr.decode()[-2000:]
    assert "limit_max_image_pixels=false" in said
    # The limit of the process, which handlers may set, stays.
    assert said.endswith("\n89478485\n")


def test_a_thin_image_that_would_be_enlarged_to_billions_of_pixels_is_refused() -> None:
    pytest.importorskip("torch")
    image_module = pytest.importorskip("PIL.Image")
    from zts.workers.handler.results import PredictionException
    from zts.workers.torch_handler.image_transforms import resized

    for size in ((60_000, 1), (1, 60_000)):
        with pytest.raises(PredictionException, match="it would have 3932160000 pixels"):
            resized(image_module.new("L", size), 256)
    assert resized(image_module.new("L", (6000, 10)), 20).size == (12_000, 20)


# ---------------------------------------------------------------- files


def test_small_files_are_read_up_to_a_bound(tmp_path: Path) -> None:
    with (tmp_path / "long").open("wb") as file:
        file.truncate(10 * 1024**3)
    with pytest.raises(OSError, match=f"it is larger than {MAX_TEXT_BYTES} bytes"):
        read_regular(tmp_path / "long")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError):
        read_json(tmp_path / "deep.json")


@pytest.mark.parametrize("flag", ["--ts-config", "--metrics-config"])
def test_configuration_that_is_no_small_file_ends_the_start_with_one_line(tmp_path: Path, flag: str) -> None:
    config = tmp_path / "config.properties"
    config.write_text(f"metrics_config={tmp_path / 'long'}\n" if flag == "--metrics-config" else "")
    with (tmp_path / "long").open("wb") as file:
        file.truncate(10 * 1024**3)
    named = str(config) if flag == "--metrics-config" else str(tmp_path / "long")
    command = [sys.executable, "-m", "zts", "http", "--ts-config", named, "--runtime-dir", str(tmp_path / "r")]
    child = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert child.returncode != 0
    assert "larger than" in child.stderr and "Traceback" not in child.stderr


# ---------------------------------------------------------------- REST


def _replies(verb: str, args: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    raise AssertionError(f"{verb} reached the broker")


@pytest.mark.parametrize("depth", [90, 101, 600, 990, 5000])
def test_registration_with_deep_json_is_a_bad_request(depth: int) -> None:
    async def ask() -> None:
        async with serving(on_request=_replies, enable_model_api=True) as running:
            for key in ("batch_size", "url", "whatever"):
                body = f'{{"url": 5, "{key}": {"[" * depth}1{"]" * depth}}}'.encode()
                answer = await running.fetch(
                    "POST", "/models", body, surface="management", Content_Type="application/json"
                )
                assert answer.status == 400, answer.body
                assert json.loads(answer.body)["type"] == "BadRequestException"

    asyncio.run(ask())


@pytest.mark.parametrize("wire", ["fast", "tornado"])
@pytest.mark.parametrize("surface", ["inference", "management"])
@pytest.mark.parametrize(
    ("length", "statuses"),
    [("9" * 5000, (400, 413)), ("9" * 18, (400, 413)), ("\xb2", (400,)), ("0" * 5000 + "3", (200, 400, 404, 413))],
)
def test_a_length_that_is_no_usual_number_is_answered(
    wire: str, surface: str, length: str, statuses: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> None:
        async with serving(http_wire=wire) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port(surface))
            head = f"POST /predictions/m HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabc"
            writer.write(head.encode("latin-1"))
            line = await asyncio.wait_for(reader.readline(), 20)
            writer.close()
            assert int(line.split()[1]) in statuses

    asyncio.run(ask())
    assert not [record for record in caplog.records if record.exc_info]
