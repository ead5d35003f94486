"""Every difference that is meant: which cases, which field, and why.

A reason is either a row of the reference page's appendix A (``A6``), or ``better: …`` in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from conformance.compare import Difference

__all__ = ["EXPLAINED", "Explained", "explain"]


@dataclass(frozen=True, slots=True)
class Explained:
    """Differences of ``field`` in ``cases`` (both patterns with ``*``) whose values match the regular expressions."""

    cases: str
    field: str
    why: str
    torchserve: str = ".*"
    zts: str = ".*"

    def covers(self, found: Difference) -> bool:
        """Whether this entry is about ``found``."""
        return (
            fnmatchcase(found.case.name, self.cases)
            and fnmatchcase(found.field, self.field)
            and re.fullmatch(self.torchserve, found.torchserve, re.DOTALL) is not None
            and re.fullmatch(self.zts, found.zts, re.DOTALL) is not None
        )


_NEW: Final = r"\(absent\)"
_CLOSES: Final = "better: a client that asks for the connection to be closed gets it closed, as HTTP has it"
_CAUSE: Final = "better: the message goes on with the cause"

EXPLAINED: Final = (
    Explained(
        "*",
        "header:content-type",
        "A6",
        torchserve=_NEW,
        zts=r"application/json|text/plain; charset=utf-8|application/octet-stream",
    ),
    # 1.1
    Explained("*request-id", "body.headers.x-request-id", "better: a sane id of the client's is kept"),
    *(Explained("connection-close", field, _CLOSES) for field in ("closes", "header:connection")),
    *(Explained("http-1-0*", field, _CLOSES) for field in ("closes", "header:connection")),
    *(Explained("*-http-get", field, _CLOSES) for field in ("closes", "header:connection")),
    Explained(
        "absolute-url",
        "*",
        "better: HTTP/1.1 servers must take an absolute request target",
        zts=".*Healthy.*|200|OK|False|keep-alive",
    ),
    # 1.3
    Explained(
        "form-empty-name",
        "*",
        "better: a mistake in the request is a 400 that says what is wrong",
        zts="400|Bad Request|.*empty name.*",
    ),
    # 1.5
    Explained("header-number", "*", "A24", zts=r"200||False|keep-alive|5|ok|text/plain.*"),
    Explained("exit", "body.message", "better: the job was tried again, the text says so", zts=r'"Worker died\..*"'),
    Explained("kill", "body.message", "better: the job was tried again, the text says so", zts=r'"Worker died\..*"'),
    Explained(
        "answer-too-big",
        "body.message",
        "better: the cause is named and the worker goes on",
        zts=".*max_response_size.*",
    ),
    # 2
    Explained("*", "body*.batchPolicy", "better: field of ours, beside", torchserve=_NEW),
    Explained("*", "body*.priority", "better: field of ours, beside", torchserve=_NEW),
    Explained("*", "body*.workers.*.state", "A12", torchserve=_NEW),
    Explained(
        "register-*",
        "body.message",
        _CAUSE,
        torchserve='"Failed to start.*"',
        zts=r'"Failed to start workers for .*\. Cause: .*',
    ),
    Explained("scale-fails", "body.message", _CAUSE, zts=r'"Failed to start workers for .*\. Cause: .*'),
    Explained("register-json-broken", "*", "A9", zts=r"400|Bad Request|.*BadRequestException.*"),
    Explained("register-json-empty", "*", "A9", zts=r"400|Bad Request|.*BadRequestException.*"),
    Explained("describe-json-no-delay", "body.0.maxBatchDelay", "A9", torchserve="-10000", zts="100"),
    Explained("describe-runtime-error", "*", "A10", zts=r"404|Not Found|True|close|.*ModelNotFoundException.*"),
    Explained("scale-min-negative", "*", "A8", zts=r"400|Bad Request|.*min_worker cannot be less than 0.*"),
    Explained("list-zero", "*", "A13", zts=r'\(absent\)|\[\{"modelName".*'),
)


def explain(found: Difference) -> str:
    """Return why ``found`` is meant, or ``""``."""
    return next((entry.why for entry in EXPLAINED if entry.covers(found)), "")
