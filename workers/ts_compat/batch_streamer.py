"""``ts.handler_utils.hf_batch_streamer``: a streamer for ``generate()`` of Hugging Face models with several prompts.

Needs the package transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from transformers.generation.streamers import BaseStreamer  # type: ignore[import-not-found, unused-ignore]

__all__ = ["TextIteratorStreamerBatch"]


class TextIteratorStreamerBatch(BaseStreamer):  # type: ignore[misc, unused-ignore]
    """Yields, for each step of a generation, a list with the new text of each prompt of the batch.

    Give it to ``model.generate(streamer=…)`` in a thread and iterate over it in another.

    Args:
        tokenizer: Decodes tokens.
        batch_size: Number of prompts.
        skip_prompt: Leave the prompts themselves out.
        timeout: Most seconds to wait for a step; None: for ever.
        decode_kwargs: For ``tokenizer.decode``, such as ``skip_special_tokens``.

    Raises:
        queue.Empty: While iterating, when a step takes longer than ``timeout``.
    """

    def __init__(
        self,
        tokenizer: Any,
        batch_size: int,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.skip_prompt = skip_prompt
        self.timeout = timeout
        self.decode_kwargs = decode_kwargs
        self.text_queue: SimpleQueue[list[str] | None] = SimpleQueue()
        self._tokens: list[list[int]] = [[] for _ in range(batch_size)]
        self._printed = [0] * batch_size
        self._is_prompt = True

    def put(self, value: Any) -> None:
        """Take the prompts' tokens (first call, [batch, length]) or one new token for each prompt."""
        rows = value.tolist()
        rows = [row if isinstance(row, list) else [row] for row in (rows if isinstance(rows, list) else [rows])]
        if len(rows) != self.batch_size:
            raise ValueError(f"tokens for {len(rows)} prompts; batch_size is {self.batch_size}")
        first, self._is_prompt = self._is_prompt, False
        if first and self.skip_prompt:
            return
        texts = []
        for index, row in enumerate(rows):
            self._tokens[index] += row
            texts.append(self._new_text(index, whole=False))
        self.text_queue.put(texts)

    def end(self) -> None:
        """Pass on what was held back, and end the iteration."""
        rest = [self._new_text(index, whole=True) for index in range(self.batch_size)]
        if any(rest):
            self.text_queue.put(rest)
        self._tokens = [[] for _ in range(self.batch_size)]
        self._printed = [0] * self.batch_size
        self._is_prompt = True
        self.text_queue.put(None)

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        texts = self.text_queue.get(timeout=self.timeout)
        if texts is None:
            raise StopIteration
        return texts

    def _new_text(self, index: int, *, whole: bool) -> str:
        text: str = self.tokenizer.decode(self._tokens[index], **self.decode_kwargs)
        if not whole and text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""  # a character of several tokens, not complete yet
        start, self._printed[index] = self._printed[index], len(text)
        return text[start:]
