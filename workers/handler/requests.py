"""The jobs of one call of the handler: read as far as the handler asks.

Few handlers look at request ids and headers or set a status, and making these for each job costs more than a fast
handler. So they are made for a whole call at the first question.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from zts.wire.heads import JobHead, request_id_of
from zts.wire.messages import WorkItem
from zts.workers.handler.rows import headers_of

__all__ = ["Reading", "RequestProcessor", "Requests"]

# Handlers may ask from several threads, and all must get the same objects. It is held for a moment, once a call.
_MAKING: Final = threading.Lock()
_NONE: Final[Mapping[int, RequestProcessor]] = {}
_OK: Final = 200


class Reading(NamedTuple):
    """What is known of a job before its body is looked at; one object for all jobs with the same head.

    ``is_plain``: its row is ``{"body": <the bytes>}``. ``is_typed``: the client understands typed answers.
    """

    head: JobHead
    is_plain: bool
    is_typed: bool


class RequestProcessor:
    """One request's headers, and what the handler wants in the answer's head.

    Args:
        request_header: Header map as handlers see it: names with the client's spelling, values strings, and one
            ``{"<parameter>": {"content-type": …}}`` entry for each parameter of the row.
    """

    __slots__ = ("_request_header", "reason_phrase", "response_header", "status_code")

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._request_header = request_header
        self.status_code: int = 200
        self.reason_phrase: str | None = None
        self.response_header: dict[str, Any] = {}

    def get_request_property(self, key: str) -> Any:
        """Return the request header ``key`` (case-sensitive), or None."""
        return self._request_header.get(key)

    def get_request_properties(self) -> dict[str, Any]:
        """Return all request headers."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Answer with status ``code`` and this reason phrase."""
        self.status_code = code
        self.reason_phrase = reason_phrase

    def get_response_status_code(self) -> int:
        """Return the status that the answer will have."""
        return self.status_code

    def get_response_status_phrase(self) -> str | None:
        """Return the reason phrase, None when nobody set one."""
        return self.reason_phrase

    def add_response_property(self, key: str, value: Any) -> None:
        """Answer with header ``key``; a value that is no string is sent as its ``str()``."""
        self.response_header[key] = value

    def get_response_headers(self) -> dict[str, Any]:
        """Return the headers set so far."""
        return self.response_header

    def get_response_header(self, key: str) -> Any:
        """Return one header set so far, or None."""
        return self.response_header.get(key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RequestProcessor) and all(
            getattr(self, name) == getattr(other, name) for name in RequestProcessor.__slots__
        )

    __hash__ = None  # type: ignore[assignment]


class Requests:
    """Jobs in the order of the handler's rows, and what the handler asked of them or set for them.

    Args:
        items: The jobs.
        readings: One for each.
        decode: As for ``row_of``.
    """

    __slots__ = ("_decode", "_ids", "_made", "_processors", "items", "readings")

    def __init__(self, items: Sequence[WorkItem], readings: Sequence[Reading], *, decode: bool = True) -> None:
        self._decode = decode
        self.items = items
        self.readings = readings
        self._ids: dict[int, str] | None = None
        self._made: dict[int, RequestProcessor] | None = None
        self._processors: list[RequestProcessor] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __deepcopy__(self, memo: dict[int, Any]) -> Requests:
        # A copied context has headers and statuses of its own; the jobs never change.
        copied = Requests(self.items, self.readings, decode=self._decode)
        copied._processors = copy.deepcopy(self.processors(), memo)
        copied._made = dict(enumerate(copied._processors))
        return copied

    def ids(self) -> dict[int, str]:
        """Return the request ids by position, always the same object."""
        if self._ids is None:
            with _MAKING:
                if self._ids is None:
                    self._ids = {index: request_id_of(item.head) for index, item in enumerate(self.items)}
        return self._ids

    def names(self) -> str:
        """Return the requests' ids for logs."""
        ids = self.ids()
        return "request " + ",".join(ids[index] or str(item.item_id) for index, item in enumerate(self.items))

    def processor(self, index: int) -> RequestProcessor:
        """Return what holds the headers of request ``index`` and its answer, always the same object.

        Raises:
            IndexError: If there is none.
        """
        if not 0 <= index < len(self.items):
            return self.processors()[index]
        made = self._made
        found = None if made is None else made.get(index)
        if found is not None:
            return found
        with _MAKING:
            return self._make(index)

    def processors(self) -> list[RequestProcessor]:
        """Return those of all requests, always the same list."""
        if self._processors is None:
            with _MAKING:
                if self._processors is None:
                    self._processors = [self._make(index) for index in range(len(self.items))]
        return self._processors

    def changed(self) -> Mapping[int, RequestProcessor]:
        """Return those by which an answer gets a status or headers; the answers of all others are plain."""
        made = self._made
        if made is None:
            return _NONE
        return {
            index: processor
            for index, processor in list(made.items())
            if processor.response_header or processor.reason_phrase or processor.status_code != _OK
        }

    def _make(self, index: int) -> RequestProcessor:
        if self._made is None:
            self._made = {}
        found = self._made.get(index)
        if found is None:
            headers = headers_of(self.readings[index].head, self.items[index].body, decode=self._decode)
            found = self._made[index] = RequestProcessor(headers)
        return found
