"""Whatever a text holds, what is shown of it is one safe line, and what is made a file name stays in its folder."""

from __future__ import annotations

import json
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.names import AWKWARD
from zts.logs import JsonFormatter, TextFormatter
from zts.metrics.exposition import Family, render
from zts.metrics.lines import Measurement, format_line, log_line, parse_line
from zts.visible import as_file_name, visible

TEXTS = st.text(st.characters()) | st.sampled_from(AWKWARD)


def is_safe(text: str) -> bool:
    unsafe = {"Cc", "Cs", "Zl", "Zp"}
    return not any(unicodedata.category(char) in unsafe or 0x202A <= ord(char) <= 0x202E for char in text)


@given(TEXTS)
def test_what_is_shown_is_one_safe_line(text: str) -> None:
    shown = visible(text)
    assert is_safe(shown)
    assert (
        shown == text or not is_safe(text) or any(char in text for char in "\u200e\u200f\u061c\u2066\u2067\u2068\u2069")
    )
    assert is_safe(visible(text, keeps_lines=True).replace("\n", ""))


@given(TEXTS)
def test_a_file_name_is_one_name_in_its_folder(text: str) -> None:
    name = as_file_name(text)
    assert name not in ("", ".", "..") and "/" not in name and is_safe(name)
    assert len(name.encode()) <= 255


@pytest.mark.parametrize("name", ["resnet-18", "weird name-x.y", "ünï", "日本", "q\"uote'"])
def test_ordinary_names_are_shown_as_they_are(name: str) -> None:
    assert visible(name) == as_file_name(name) == name


def record(message: str, name: str = "zts.node") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, message, (), None)


@pytest.mark.parametrize("name", AWKWARD)
def test_a_log_line_stays_a_line_and_json_keeps_the_name(name: str) -> None:
    line = TextFormatter("node").format(record(f"model {name} is there"))
    assert is_safe(line) and line.endswith(" is there")
    text = JsonFormatter("node").format(record(f"model {name} is there"))
    assert is_safe(text) and json.loads(text)["message"] == f"model {name} is there"


def test_a_traceback_keeps_its_lines_and_no_escapes() -> None:
    try:
        raise ValueError("\x1b[31mred\nsecond line")
    except ValueError as exc:
        error = record("it failed")
        error.exc_info = (type(exc), exc, exc.__traceback__)
    lines = TextFormatter("node").format(error).split("\n")
    assert lines[-2:] == [r"ValueError: \x1b[31mred", "second line"]
    assert all(is_safe(line) for line in lines)


def test_no_line_of_an_error_looks_like_a_line_of_the_log() -> None:
    try:
        raise ValueError("x\n2026-01-01T00:00:00,000 [ERROR] broker - forged")
    except ValueError as exc:
        error = record("it failed")
        error.exc_info = (type(exc), exc, exc.__traceback__)
    assert TextFormatter("node").format(error).endswith("\n  2026-01-01T00:00:00,000 [ERROR] broker - forged")


@pytest.mark.parametrize("name", AWKWARD)
def test_what_a_model_prints_is_shown_safely(name: str) -> None:
    printed = record(f"W-9000-m_1.0-stdout MODEL_LOG - a\t{name}\nsecond")
    printed.name = "zts.model"
    lines = TextFormatter("node").format(printed).split("\n")
    assert all(is_safe(line.replace("\t", "")) for line in lines)
    assert lines[0].partition(" MODEL_LOG - ")[2].startswith("a\t")
    assert lines[-1].endswith("[INFO ] second")


@pytest.mark.parametrize("name", AWKWARD)
def test_a_label_is_read_back_by_prometheus_own_parser(name: str) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    text = render([Family("Seen", "gauge", "Count", ("model_name", "after"), {(name, "x"): 2.0})])
    assert is_safe(text.replace("\n", "")) and text.count("\n") == 3
    (family,) = parser.text_string_to_metric_families(text.replace('",}', '"}'))
    (sample,) = family.samples
    assert sample.labels == {"model_name": visible(name, keeps_lines=True), "after": "x"}


@pytest.mark.parametrize("name", AWKWARD)
def test_a_metric_line_of_a_model_is_one_line_with_its_dimensions(name: str) -> None:
    dimensions = (("ModelName", name), ("Level", "Model"))
    line = format_line(Measurement("T", "Milliseconds", 1.5, dimensions, "gauge", "", "r1"), 17, "vm")
    assert is_safe(line)
    back = parse_line(line)
    assert back is not None
    assert (back.name, back.value, [key for key, _ in back.dimensions]) == ("T", 1.5, ["ModelName", "Level"])
    assert back.dimensions[1] == ("Level", "Model")
    if is_safe(name) and not set(name) & set("|,"):
        assert back.dimensions[0] == ("ModelName", name)
    assert is_safe(log_line("T", "ms", 1.5, back.dimensions, hostname="vm", epoch_s=17))
    assert is_safe(log_line("T", "ms", 1.5, dimensions, hostname="vm", epoch_s=17))
