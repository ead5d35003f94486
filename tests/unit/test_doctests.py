"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.unit.test_layers import MODULES

# Those that need torch are run in tests/integration/test_doctests_torch.py, where it may be imported.
WITH_EXAMPLES = sorted(name for name, path in MODULES.items() if ">>> " in path.read_text())
TORCH = [name for name in WITH_EXAMPLES if "torch_handler" in name]


@pytest.mark.parametrize("module", [name for name in WITH_EXAMPLES if name not in TORCH])
def test_examples_are_true(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.failed == 0
    assert outcome.attempted > 0


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) > 10
