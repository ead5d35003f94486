"""Every difference that is meant: which cases, which field, and why.

A reason is either a row of the reference page's appendix A (``A6``), or ``better: …`` in words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from conformance.compare import Difference

__all__ = ["EXPLAINED", "Explained", "explain", "unseen"]


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


def _whole(cases: str, why: str, status: str, body: str) -> tuple[Explained, ...]:
    """Another answer altogether: zts' status, and a regular expression for its body."""
    follow = ("reason", "closes", "header:connection", "header:content-type")
    return (
        Explained(cases, "status", why, zts=status),
        *(Explained(cases, field, why) for field in follow),
        Explained(cases, "body*", why, zts=body),
        Explained(cases, "outcome", why, zts=f"answer {status} {body}"),
    )


def _message(cases: str, why: str, torchserve: str, zts: str) -> Explained:
    """The same status and type; only the message says more."""
    return Explained(cases, "body.message", why, f'"{torchserve}', f'"{zts}')


_CLOSES: Final = "better: a client that asks for the connection to be closed gets it closed, as HTTP has it"
_CAUSE: Final = "better: the message goes on with the cause"
_BAD_JSON: Final = r".*BadRequestException.*"
_NO_WORKER: Final = r"Model .* has no worker to serve .*"
_TRIED: Final = "better: the job was tried again in another worker, and the text says so"
_LIKE_A_TEXT: Final = "better: bytes that are JSON are read as JSON, as with kserve"
_NO_USE: Final = "better: numbers with which nothing could work are refused by name"
_OTHER_PROGRAM: Final = "better: no handler can rely on how the worker's own program is called"
_OWN_SESSION: Final = "better: what a handler sends to its group does not hit the server, nor does a terminal's Ctrl-C"
_STOPPABLE: Final = "better: SIGTERM lets the worker finish what it holds; processes that a handler forks forget that"
_THREADS: Final = "better: each worker has its share of the cores, and threads that wait do not spin"
_NOT_LOST: Final = "better: a body whose parts would be lost without a word is refused, and the text says why"
_NO_JAVA: Final = "better: no text of Java's; 400, as it is the client's fault"
_READ: Final = "better: read as its standard has it; TorchServe loses it, or gives the bytes as they are"
_CLEAR: Final = "better: what is meant is clear, though TorchServe's parser fails at it"
_NO_ARCHIVE: Final = "better: what is no archive is called so"

EXPLAINED: Final = (
    Explained(
        "*",
        "header:content-type",
        "A6",
        torchserve=_NEW,
        zts=r"application/json|text/plain; charset=utf-8|application/octet-stream",
    ),
    # 1.1
    *(
        Explained(cases, field, _CLOSES)
        for cases in ("connection-close", "http-1-0*", "*-http-get")
        for field in ("closes", "header:connection")
    ),
    *_whole("absolute-url", "better: an HTTP/1.1 server must take an absolute target", "200", ".*Healthy.*"),
    # 1.2
    Explained("*api*", "body.paths get /metrics", "A11: it is described on the port that serves it", zts=_NEW),
    Explained("*description*", "body.paths get /metrics", "A11: it is described on the port that serves it", zts=_NEW),
    Explained("*options*", "body.paths get /metrics", "A11: it is described on the port that serves it", zts=_NEW),
    # 1.3
    *(
        entry
        for case in (
            "final-missing",
            "value-cut",
            "head-cut",
            "file-cut",
            "only-boundary",
            "boundary-not-there",
            "no-multipart-at-all",
            "cr-only",
            "encoded-gzip-multipart",
        )
        for entry in _whole(f"forms-{case}", _NOT_LOST, "400", ".*Malformed multipart body.*")
    ),
    *(
        entry
        for case in (
            "disposition-no-name",
            "disposition-no-name-file",
            "disposition-empty-name",
            "disposition-only-colon",
            "disposition-empty",
            "disposition-extended-name",
            "head-none",
            "head-no-disposition",
        )
        for entry in _whole(f"forms-{case}", _NO_JAVA, "400", ".*Malformed multipart body: a part without a name.*")
    ),
    *(
        Explained(f"forms-{case}", "body.*", _READ)
        for case in (
            "preamble",
            "preamble-many-lines",
            "boundary-blanks-behind",
            "boundary-prefix-of-line",
            "boundary-then-more-in-file",
            "type-quoted-escape",
            "type-quoted-semicolon",
            "type-upper-case",
            "type-blanks-around",
            "type-latin",
            "fields-type-blank",
        )
    ),
    *(
        entry
        for case in (
            "disposition-extended-file-no-charset",
            "disposition-extended-file-bad",
            "disposition-attachment",
            "disposition-file",
            "disposition-trailing-semicolon",
            "head-folded*",
            "length-file-short",
            "type-empty-boundary",
            "part-type-text-latin",
            "part-type-charset-unknown",
            "part-type-charset-empty",
            "part-type-mixed",
        )
        for entry in _whole(f"forms-{case}", _CLEAR, "200", ".*")
    ),
    # 1.4
    Explained(
        "status-304", "header:content-length", "better: no length is given for a body that HTTP forbids", zts=_NEW
    ),
    Explained(
        "type-by-header",
        "spelling:content-type",
        "better: one spelling, whoever sets it",
        "Content-Type",
        "content-type",
    ),
    Explained(
        "type-both", "spelling:content-type", "better: one spelling, whoever sets it", "Content-Type", "content-type"
    ),
    # 1.5
    *_whole("header-number", "A24", "200", "ok"),
    Explained("header-number", "header:x-number", "A24", zts="5"),
    _message("exit*", _TRIED, "Worker died.*", r"Worker died\. .*2 workers.*"),
    *_whole("kill", "better: always 500; there it is 500 or 507 by chance", "500", ".*Worker died.*"),
    _message("response-timeout", _TRIED, "Worker died.*", r"Worker died\. .*"),
    _message(
        "answer-too-big", "better: the cause is named and the worker goes on", "Worker died.*", ".*max_response_size.*"
    ),
    _message("no-worker*", "A2", _NO_WORKER, _NO_WORKER),
    _message("queue-full", "A2", _NO_WORKER, _NO_WORKER + "Queue full.*"),
    _message("no-ticket", "A2", _NO_WORKER, _NO_WORKER),
    *_whole("client-timeout", "A1", "408", ".*RequestTimeoutException.*"),
    Explained("*-gives-up", "body.0.jobQueueStatus.*", "A1", "99|1", "100|0"),
    Explained("*-gives-up", "body.*.workers.*.reason", "A12", torchserve=_NEW),
    Explained("*-async-fail", "body.*.workers.*.reason", "A12", torchserve=_NEW),
    *_whole("dead-worker", "A1", "503", ".*ServiceUnavailableException.*"),
    *_whole("unregister-in-flight", "A1", "200", "slept"),
    Explained(
        "prediction-exception-418",
        "reason",
        "better: the phrase that HTTP's list has",
        "Client Error .418.",
        "I'm a Teapot",
    ),
    Explained(
        "expect-too-big", "closes", "better: the body that may still come is not read as a request", "False", "True"
    ),
    *_whole("http-2", "better: a version that this port does not speak is refused", "400", ".*Invalid HTTP message.*"),
    *_whole(
        "bad-percent",
        "better: no text of Java's; 404 with the name as it was sent",
        "404",
        ".*ModelNotFoundException.*",
    ),
    # 2
    Explained("*", "body*.batchPolicy", "better: a field of ours, beside", torchserve=_NEW),
    Explained("*", "body*.priority", "better: a field of ours, beside", torchserve=_NEW),
    Explained("*", "body*.workers.*.state", "A12", torchserve=_NEW),
    *_whole("m-set-default-get", "better: GET of a route that only takes PUT", "405", ".*MethodNotAllowedException.*"),
    _message("register-*", _CAUSE, "Failed to start.*", r"Failed to start workers for .*\. Cause: .*"),
    _message("register-*", _CAUSE, "Failed to download.*", r"Failed to download archive from: .*\. Cause: .*"),
    _message("scale-fails", _CAUSE, "Failed to start.*", r"Failed to start workers for .*\. Cause: .*"),
    *_whole("register-json-broken", "A9", "400", _BAD_JSON),
    *_whole("register-json-empty", "A9", "400", _BAD_JSON),
    Explained("describe-json-no-delay", "body.0.maxBatchDelay", "A9", "-10000", "100"),
    *_whole("describe-runtime-error", "A10", "404", ".*ModelNotFoundException.*"),
    *_whole("describe-memory-error", "A10", "404", ".*ModelNotFoundException.*"),
    *_whole("register-corrupt", _NO_ARCHIVE, "500", ".*Failed to save model: corrupt.mar.*"),
    *_whole("register-http-text", _NO_ARCHIVE, "500", ".*Failed to save model: .*text.mar.*"),
    _message(
        "register-no-manifest",
        "better: the text says what to give",
        "Model name is not defined.*",
        ".*names no handler.*",
    ),
    *_whole(
        "register-no-manifest-handler",
        "better: named after its file, as the page has it",
        "200",
        ".*nomanifest.*registered.*",
    ),
    *_whole("describe-no-manifest", "better: named after its file, as the page has it", "200", ".*nomanifest.*"),
    *_whole("register-absolute-folder", "A21", "404", ".*ModelNotFoundException.*"),
    *_whole("register-absolute-file", "A21", "404", ".*ModelNotFoundException.*"),
    *_whole(
        "register-name-long", "better: a name that would not fit into a message is refused", "400", ".*at most 256.*"
    ),
    *_whole("register-page", _NO_ARCHIVE, "500", ".*Failed to save model: page.mar: it is a web page.*"),
    *_whole("register-http-page", _NO_ARCHIVE, "500", ".*Failed to save model: .*page.mar: it is a web page.*"),
    *_whole("register-empty-file", _NO_ARCHIVE, "500", ".*Failed to save model: empty.mar: it is empty.*"),
    _message("register-*", _CAUSE, "Failed to save model: .*", r"Failed to save model: .*: it is .*"),
    *_whole("start-outside-archive", "better: what the operator wrote is loaded from where it is", "200", ".*"),
    *(
        _entry
        for case in ("startup-zero*", "batch-zero", "delay-negative")
        for _entry in _whole(f"register-{case}", _NO_USE, "400", ".*must be at least.*")
    ),
    *_whole("register-runtime-lsp", "better: refused before a worker is started", "400", ".*LSP.*"),
    *_whole("scale-min-negative", "A8", "400", ".*min_worker cannot be less than 0.*"),
    Explained(
        "scale-between", "body.status", "better: the number of workers that there are", ".* 1 for .*", ".* 2 for .*"
    ),
    Explained("customized-all", "body*.customizedMetadata", "A26", torchserve=_NEW),
    Explained("customized-*", "reason", "better: the usual phrase", "", "OK"),
    Explained("mnist-describe", "reason", "better: the usual phrase", "", "OK"),
    Explained("list-zero", "*", "A13", zts=r"\(absent\)|\[\{\"modelName.*"),
    Explained("oip-server*", "body.extensions", "A15", torchserve=_NEW),
    Explained("*", "header:allow", "better: a 405 names the methods that there are", _NEW, "[A-Z, ]+"),
    Explained("tls-plain-*", "header:x-request-id", "better: every answer has an id", torchserve=_NEW),
    *_whole("shared-describe-version", "A17", "200", ".*modelName.*"),
    # 3
    Explained("*", "line *zts_*", "better: metrics of ours, beside", torchserve=_NEW),
    Explained("metric-mode-log", "body", "better: metrics of ours, beside", "", r"((# (HELP|TYPE) )?zts_[^\n]*\n)*"),
    # 5.6
    Explained(
        "printed-separators",
        "body",
        "better: a line ends where log readers see its end; characters that move a cursor are escaped as in JSON",
        zts=r".*line\\u2028separator\n.*next\\u0085line\n.*vertical\\u000btab, form\\u000cfeed.*",
    ),
    Explained(
        "printed-texts",
        "body",
        "better: what a model prints can move no cursor and forge no line",
        torchserve=".*\x1b.*",
        zts=r".*\tand \\u001b\[31mcolour\\u001b\[0m and nul \\u0000\n.*",
    ),
    Explained(
        "printed-texts",
        "body",
        "better: UTF-8 is read whatever the locale is",
        torchserve=r".*z\?rich \? \?\n.*",
        zts=".*z\u00fcrich \u2713 \U0001f600\n.*",
    ),
    Explained("printed-*", "reason", "better: what handlers print is not for all users of the host", "644", "640"),
    # 8
    Explained(
        "process-environment",
        "body.ZTS_MODEL_PATH",
        "better: processes that a handler starts learn which folders are the model's",
        _NEW,
        '"set"',
    ),
    Explained(
        "process-folders",
        "body.path",
        "better: ts is a package on the path, for child processes too",
        r'\["<model>"\]',
        r'\["<model>", "[^"]*/ts_compat/path"\]',
    ),
    Explained("process-environment", "body.*_NUM_THREADS", _THREADS, _NEW, r'"\d+"'),
    Explained("process-environment", "body.OMP_WAIT_POLICY", _THREADS, _NEW, '"PASSIVE"'),
    Explained(
        "process-environment",
        "body.PYTHONPATH",
        "better: no empty entry, which means the folder that a program happens to be started in",
        '"<model>:"',
        '"<model>(:[^:]+)?"',
    ),
    Explained(
        "process-environment",
        "body.PYTHONUNBUFFERED",
        "better: lines of Python programs that a handler starts come at once, and none is lost when they crash",
        _NEW,
        '"1"',
    ),
    Explained(
        "process-streams",
        "body.stdout.line_buffering",
        "better: a line is in the log when it is printed, and none is lost when the process crashes",
        "false",
        "true",
    ),
    Explained(
        "process-streams",
        "body.descriptors.0.0.0",
        "better: reading standard input gives its end; there it waits for ever",
        '"ISFIFO"',
        '"ISCHR"',
    ),
    *(Explained("process-program", f"body.{what}", _OTHER_PROGRAM) for what in ("argv", "main file", "main spec")),
    Explained("process-torch", "body.threads.*", _THREADS, r"\d+", r"\d+"),
    Explained(
        "process-threads", "body.others", "better: beats go on while a handler runs", r"\[\]", r'\["zts-control"\]'
    ),
    Explained("process-signals", "body.dispositions.SIGTERM", _STOPPABLE, '"SIG_DFL"', '"a function"'),
    Explained(
        "process-signals", "body.dispositions.SIGINT", _OWN_SESSION, '"(KeyboardInterrupt|SIG_IGN)"', '"a function"'
    ),
    Explained("process-signals", "body.wakeup", _STOPPABLE, "false", "true"),
    Explained("process-signals", "body.blocked", "better: none is blocked for Java's sake", r"\[3\]", r"\[\]"),
    Explained("process-limits", "body.own group", _OWN_SESSION, "false", "true"),
    Explained("process-limits", "body.own session", _OWN_SESSION, "false", "true"),
    Explained(
        "process-python", "body.frozen", "better: the worker's own objects, none of the handler's", "false", "true"
    ),
    Explained(
        "process-python",
        "body.flags.safe_path",
        "better: an archive's files hide no module that zts needs",
        "false",
        "true",
    ),
    Explained("process-python", "body.ts", "better: nothing of ts is imported before it is asked for", "true", "false"),
    Explained(
        "async-*",
        "outcome",
        "better: an asynchronous worker of TorchServe may lose an answer, or never get ready (a race)",
        "timeout",
        "answer 200 .*",
    ),
    *_whole("envelope-json-bytes", _LIKE_A_TEXT, "200", r".*predictions.*"),
    _message(
        "envelope-json-empty", "better: the true cause", "Prediction failed.*", "number of batch response mismatched.*"
    ),
)


def explain(found: Difference) -> str:
    """Return why ``found`` is meant, or ``""``."""
    return next((entry.why for entry in EXPLAINED if entry.covers(found)), "")


def unseen(found: Sequence[Difference]) -> list[str]:
    """Return what no difference of ``found`` needed: reasons that may be gone, or depend on who is faster."""
    seen: dict[tuple[str, str], bool] = {}
    for entry in EXPLAINED:
        key = entry.cases, entry.why
        seen[key] = seen.get(key, False) or any(entry.covers(one) for one in found)
    return [f"{cases} ({why})" for (cases, why), used in seen.items() if not used]
