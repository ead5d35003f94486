"""Write down what TorchServe makes of each form of ``requests/forms.py``, for tests that run without Java.

python -m conformance.record_forms --torchserve .venv-torchserve/bin/torchserve
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from conformance import archives
from conformance.case import Run
from conformance.requests import PLAIN, forms
from conformance.run import send, wait_models
from conformance.servers import ROOT, Server
from conformance.wire import Reply

__all__ = ["FILE", "row_recorded"]

FILE: Final = ROOT / "tests" / "golden" / "forms.json"
_LONG: Final = 200
_MANY: Final = 50


def shown(value: str) -> str:
    """Return a value as it is recorded: long ones by length and checksum."""
    return value if len(value) <= _LONG else f"{len(value)} characters, CRC {zlib.crc32(value.encode()):08x}"


def row_recorded(row: Mapping[str, Sequence[str]], types: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept of a row, values as type and representation, and of its content types."""
    if len(row) > _MANY:
        return {"status": 200, "row": shown(json.dumps({**row}, sort_keys=True)), "types": sorted({*types.values()})}
    return {
        "status": 200,
        "row": {shown(key): [kind, shown(value)] for key, (kind, value) in row.items()},
        "types": {shown(key): value for key, value in types.items()},
    }


def recorded(reply: Reply) -> dict[str, Any]:
    """Return what is kept of an answer of the model ``echo``: the row and its content types, or the error."""
    told = json.loads(reply.body)
    if reply.status != 200:
        return {"status": reply.status, "type": told["type"], "message": told["message"]}
    types = {key: value["content-type"] for key, value in told["headers"].items() if isinstance(value, dict)}
    return row_recorded(told["row"], types)


def main() -> None:
    """Start TorchServe, ask it each case, write the file."""
    parser = argparse.ArgumentParser(prog="python -m conformance.record_forms", description=__doc__)
    parser.add_argument("--torchserve", default=str(ROOT / ".venv-torchserve/bin/torchserve"), metavar="COMMAND")
    command = Path(parser.parse_args().torchserve).absolute()
    run = Run("forms", forms.CASES, PLAIN, models=("echo.mar",))
    with tempfile.TemporaryDirectory(prefix="zc-", dir="/tmp") as folder:
        parts, store = Path(folder, "parts"), Path(folder, "store")
        parts.mkdir()
        archives.make_weights(str(command.with_name("python")), parts)
        archives.build_store([str(command.with_name("torch-model-archiver"))], parts, store)
        server = Server("torchserve", [str(command), "--start"], Path(folder, "ts"), store, run, Path(folder), {})
        try:
            server.start()
            server.wait_ready()
            wait_models(server)
            answers = {case.name: recorded(send(server, case, case.body)) for case in forms.CASES}
        finally:
            server.stop()
    lines = [f"  {json.dumps(name)}: {json.dumps(answer, sort_keys=True)}" for name, answer in answers.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
