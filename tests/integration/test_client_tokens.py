"""Which inference token our own REST clients send."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zts.client.tokens import inference_token


def test_a_given_token_wins_over_the_key_file(tmp_path: Path) -> None:
    (tmp_path / "key_file.json").write_text(json.dumps({"inference": {"key": "abcdefgh"}}))
    assert inference_token("mine", tmp_path) == "mine"
    assert inference_token(None, tmp_path) == "abcdefgh"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"inference": {"key": 5}}', '{"inference": []}'])
def test_a_key_file_that_is_none_counts_as_no_token(tmp_path: Path, text: str) -> None:
    assert inference_token(None, tmp_path) == ""
    (tmp_path / "key_file.json").write_text(text)
    assert inference_token(None, tmp_path) == ""
