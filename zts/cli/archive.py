"""``zts archive``: pack a model; the options are those of ``torch-model-archiver``."""

from __future__ import annotations

import argparse
import sys

from zts.archive.manifest import RUNTIMES
from zts.archive.pack import ARCHIVE_FORMATS, BUILT_IN_HANDLERS, PackOrder, pack_archive
from zts.errors import ZtsError

__all__ = ["add_arguments", "run"]

SUMMARY = "pack a model into an archive (.mar)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``torch-model-archiver`` 0.12; as there, long ones may be shortened."""
    parser.allow_abbrev = True
    parser.description = "Pack handler, weights and files into an archive that zts (and TorchServe) can serve."
    parser.add_argument("--model-name", required=True, metavar="NAME", help="name of the model and of the file made")
    parser.add_argument("-v", "--version", required=True, help="version of the model, any text")
    parser.add_argument(
        "--handler",
        required=True,
        help="Python file, with or without .py, optionally with :function; or one of "
        + ", ".join(sorted(BUILT_IN_HANDLERS)),
    )
    parser.add_argument("--serialized-file", default="", metavar="FILE", help="weights (.pt, .pth) or a ScriptModule")
    parser.add_argument("--model-file", default="", metavar="FILE", help="Python file with the one nn.Module class")
    parser.add_argument(
        "--extra-files",
        default="",
        metavar="LIST",
        help="comma list of files, patterns and folders (their content goes to the archive's root)",
    )
    parser.add_argument("--runtime", default="python", choices=RUNTIMES, help="default: %(default)s")
    parser.add_argument("--export-path", default=".", metavar="DIR", help="folder to write to; default: here")
    parser.add_argument(
        "--archive-format",
        default="default",
        choices=ARCHIVE_FORMATS,
        help="default: compressed NAME.mar; zip-store: NAME.mar, not compressed; tgz: NAME.tar.gz; no-archive: folder",
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what is there")
    parser.add_argument("-r", "--requirements-file", default="", metavar="FILE", help="packages of this model")
    parser.add_argument("-c", "--config-file", default="", metavar="FILE", help="model-config.yaml of this model")


def run(args: argparse.Namespace) -> int:
    """Pack, print the path that was written, and return 0; 1 with one line on standard error if it cannot be done."""
    order = PackOrder(
        model_name=args.model_name,
        version=args.version,
        handler=args.handler,
        serialized_file=args.serialized_file,
        model_file=args.model_file,
        extra_files=args.extra_files,
        requirements_file=args.requirements_file,
        config_file=args.config_file,
        runtime=args.runtime,
        export_path=args.export_path,
        archive_format=args.archive_format,
        force=args.force,
    )
    try:
        path = pack_archive(order, warn=lambda text: print(f"zts archive: warning: {text}", file=sys.stderr))
    except ZtsError as exc:
        print(f"zts archive: {exc.public_message}", file=sys.stderr)
        return 1
    print(path)
    return 0
