"""The examples in the docstrings of the torch handlers are true."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.unit.test_doctests import TORCH


@pytest.mark.parametrize("module", TORCH or [None])
def test_examples_are_true(module: str | None) -> None:
    if module is None:
        pytest.skip("no torch handler has examples")
    assert doctest.testmod(importlib.import_module(module)).failed == 0
