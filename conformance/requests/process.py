"""Sections 5.6, 8.1.1 and 9.8: the process that runs a handler, and what becomes of what it prints and logs."""

from __future__ import annotations

from typing import Final

from conformance.case import OCTETS, Case, ask

__all__ = ["ASYNC", "CASES", "IN_POSIX_LOCALE", "MODELS"]

MODELS: Final = ("process.mar", "printing.mar")

_PARTS: Final = (
    *("logging", "warnings", "environment", "folders", "program", "threads", "streams", "signals", "children"),
    *("locale", "limits", "python", "loops", "torch"),
)
# What these tell depends on the host.
_OF_THE_HOST: Final = ("environment", "folders", "locale", "limits", "torch")
_PRINTED: Final = (
    *("levels", "own-level", "prints", "texts", "separators", "progress", "warnings", "exceptions", "huge", "threads"),
    *("children", "basic-config", "own-handler", "dict-config", "forced"),
)


def _state(part: str) -> Case:
    return ask(
        f"process-{part}",
        "8.1.1 process",
        "/predictions/process",
        data=part.encode(),
        kind=OCTETS,
        method="POST",
        timeout_s=60,
        is_recorded=part not in _OF_THE_HOST,
    )


def _lines(name: str, file: str) -> Case:
    mark = name.partition("@")[0]
    ends = r"\A" + "".join(rf"(?=.*-{stream} MODEL_LOG - -- end {mark}\n)" for stream in ("stdout", "stderr"))
    return Case(
        name,
        "5.6 model_log.log",
        file,
        port="file",
        rule="printed",
        until=ends,
        mask=(r"/\S*/printing\.py",),
        is_recorded=name != "printed-huge",
    )


def _printed(part: str) -> tuple[Case, ...]:
    name = f"printed-{part}"
    print_it = ask(
        f"print-{part}", "8.1.1 printed", "/predictions/printing", data=name.encode(), kind=OCTETS, method="POST"
    )
    return print_it, _lines(name, "logs/model_log.log")


ASYNC: Final = tuple(
    ask(f"async-{word}", "9.8 loop", "/predictions/processasync", data=word.encode(), kind=OCTETS, method="POST")
    for word in ("loop", "task", "signal", "program", "thread")
)

CASES: Final = (
    *map(_state, (*_PARTS, "stages")),
    _lines("printed-initialize", "logs/model_log.log"),
    *(case for part in _PRINTED for case in _printed(part)),
    _lines("printed-levels@console", "output.log"),
)
IN_POSIX_LOCALE: Final = (*map(_state, ("locale", "streams", "environment")), *_printed("texts"))
