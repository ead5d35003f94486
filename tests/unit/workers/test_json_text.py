"""Our JSON writer gives the standard library's text."""

from __future__ import annotations

import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zts.workers.handler.json_text import dumps_indented

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers() | st.booleans() | st.none(), inner)
    ),
    max_leaves=20,
)


class Colour(str, enum.Enum):
    RED = "red"


@given(anything)
def test_text_is_the_standard_librarys(value: Any) -> None:
    assert dumps_indented(value) == json.dumps(value, indent=2)


@pytest.mark.parametrize("value", [{}, [], (), [[]], {"a": {}}, [Colour.RED], {"a": [Colour.RED, 1]}, "\u2028<>&"])
def test_odd_values_too(value: Any) -> None:
    assert dumps_indented(value) == json.dumps(value, indent=2)


@pytest.mark.parametrize("value", [{1, 2}, [object()], {"a": [b"x"]}])
def test_what_json_does_not_know_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        dumps_indented(value)


def test_a_list_inside_itself_is_a_value_error() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises((ValueError, RecursionError)):
        dumps_indented(loop)
