"""Load a model's handler in this process, send it one file, and show what it sees and what it answers.

No server is started, so a breakpoint() in the handler stops here. MODEL is an archive, a folder with an unpacked one,
or a handler file such as my_handler.py. Exit codes: 0 answered, 1 the handler failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zts.errors import ConfigError
from zts.nesting import parsed_json
from zts.wire.heads import PARTS, JobHead, pack_job_head, pack_parts, unpack_result_head
from zts.wire.messages import Result, WorkItem

if TYPE_CHECKING:
    from zts.workers.options import WorkerOptions

__all__ = ["add_arguments", "run"]

_MAX_SHOWN: Final = 2000
_REQUEST_ID: Final = "try-1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts try``."""
    parser.add_argument("model", metavar="MODEL", help="archive, folder, or the handler's .py file")
    parser.add_argument("file", metavar="FILE", nargs="?", help="what to send; '-' reads stdin (default: no body)")
    parser.add_argument("--content-type", metavar="T", default="", help="such as application/json or text/plain")
    parser.add_argument(
        "--json-row", action="store_true", help="FILE is a JSON object that is the row itself, as a form's fields are"
    )
    parser.add_argument("--header", metavar="K=V", action="append", default=[], help="a request header; repeatable")
    parser.add_argument("--handler", metavar="NAME", help="instead of the archive's own")
    parser.add_argument("--envelope", metavar="NAME", default="", help="service_envelope: body, json, kserve, kservev2")
    parser.add_argument("--batch-size", metavar="N", type=int, default=1, help="send the same request N times (1)")
    parser.add_argument("--gpu", metavar="N", type=int, help="GPU for the handler (default: CPU)")
    parser.add_argument("--output", metavar="FILE", help="write the answer's bytes there")


def run(args: argparse.Namespace) -> int:
    """Load, show, call, show."""
    from zts.workers.handler.loader import LoadError, load_service
    from zts.workers.runtime.handler_process import set_up_output

    body = _body(args.file)
    output = Path(args.output).absolute() if args.output else None
    item = _job(args, body)
    if args.batch_size < 1:
        raise ConfigError("--batch-size must be at least 1")
    scratch = Path(tempfile.mkdtemp(prefix="zts-try-"))
    try:
        options = _options(args, scratch)
        _show_row(item)
        set_up_output()
        print("loading the handler …", file=sys.stderr)
        try:
            service = load_service(options)
        except LoadError as exc:
            print(exc.traceback_text or "", end="", file=sys.stderr)
            print(f"zts try: {exc.public_message}", file=sys.stderr)
            return 1
        items = [item._replace(item_id=number) for number in range(1, args.batch_size + 1)]
        results = service.run(items, _show_chunks)
        service.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if output is not None:
        output.write_bytes(results[0].body)
    failed = [_show_answer(result, len(results), shown=output is None) for result in results]
    return 1 if any(failed) else 0


def _body(name: str | None) -> bytes:
    if name is None:
        return b""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as exc:
        raise ConfigError(f"{name} cannot be read: {exc.strerror}") from None


def _job(args: argparse.Namespace, body: bytes) -> WorkItem:
    """Return the request as it would travel from an HTTP server to a worker."""
    headers = [_header(text) for text in args.header]
    if args.json_row:
        parts = [(name, *_part(value)) for name, value in _row(body).items()]
        return WorkItem(1, 0, pack_job_head(JobHead(_REQUEST_ID, headers, PARTS)), pack_parts(parts))
    content_type = args.content_type.partition(";")[0].strip()
    if content_type:
        headers.append(("Content-Type", args.content_type))
    return WorkItem(1, 0, pack_job_head(JobHead(_REQUEST_ID, headers, content_type=content_type)), body)


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise ConfigError(f"--header {text}: write NAME=VALUE")
    return name, value


def _row(body: bytes) -> dict[str, Any]:
    try:
        row = parsed_json(body)
    except ValueError as exc:
        raise ConfigError(f"--json-row: the file is no JSON: {exc}") from None
    if not isinstance(row, dict):
        raise ConfigError("--json-row: the file must hold a JSON object")
    return row


def _part(value: Any) -> tuple[str, bytes]:
    return (
        ("text/plain", value.encode()) if isinstance(value, str) else ("application/json", json.dumps(value).encode())
    )


def _options(args: argparse.Namespace, scratch: Path) -> WorkerOptions:
    from zts.archive import read_model, unpack
    from zts.workers.options import WorkerOptions

    source = Path(args.model).absolute()
    if not source.exists():
        raise ConfigError(f"{args.model} does not exist")
    order: dict[str, Any] = {"handler": args.handler, "batch_size": args.batch_size}
    if source.suffix == ".py":
        order["handler"] = args.handler or source.name
        model_dir = source.parent
    else:
        model_dir = unpack(source, scratch)
    given = {key: value for key, value in order.items() if value is not None} | {"by_operator": True}
    in_place = source.is_dir() or source.suffix == ".py"
    spec, _ = read_model(
        model_dir, url=str(source), args=given, model_name_hint=source.stem, is_operators_folder=in_place
    )
    return WorkerOptions(
        worker_id="try",
        epoch=1,
        spec=spec,
        model_dir=str(model_dir),
        worker_endpoint="",
        control_endpoint="",
        gpu_id=args.gpu,
        service_envelope=args.envelope,
    )


def _show_row(item: WorkItem) -> None:
    from zts.wire.heads import unpack_job_head
    from zts.workers.handler.rows import make_row

    row, headers = make_row(unpack_job_head(item.head), item.body)
    print("the handler gets")
    print(f"  row      {_short(repr(row))}")
    for name, value in headers.items():
        print(f"  header   {name}: {value!r}")


def _show_chunks(rows: Sequence[Result]) -> None:
    for row in rows:
        print(f"  chunk    {_short(_text(row.body))}")
    sys.stdout.flush()


def _show_answer(result: Result, count: int, *, shown: bool) -> bool:
    """Print one answer; return whether it is an error."""
    head = unpack_result_head(result.head)
    number = f" {result.item_id}" if count > 1 else ""
    print(f"answer{number}")
    print(f"  status   {result.status} {head.reason}".rstrip())
    if head.content_type:
        print(f"  header   content-type: {head.content_type}")
    for name, value in head.headers:
        print(f"  header   {name}: {value}")
    if shown:
        print(f"  body     {_short(_text(result.body))}")
    return bool(head.error) or result.status >= 400


def _text(body: Any) -> str:
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError:
        return f"{len(body)} bytes: {bytes(body[:64])!r}"


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} … ({len(text)} characters)"
