"""What a requirements file depends on, and what it may ask of pip. Layer 3: reads the archive's files.

Two archives may share a built environment only if everything that pip would read is the same: the file itself, the
files and folders of the archive that it names in any form, the variables that it uses and pip's own settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from zts.errors import BadRequest
from zts.regular_file import open_regular

__all__ = ["add_content", "check_wheels_only"]

_VARIABLE: Final = re.compile(r"\$\{([A-Z0-9_]+)\}")  # as pip expands them
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_SEPARATORS: Final = re.compile(r"""[\s=@"',]+""")
_MAX_BYTES: Final = 4 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
# A project's name with extras, then version bounds and markers; no option, URL or path.
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^\]]*\]\s*)?((\(?[<>=!~]=?|;)[^/@:\\]*)?")
# Of a path; a longer word is none.
_MAX_PATH_CHARS: Final = 4096
# Quoted of a line in a message.
_SHOWN_CHARS: Final = 200


def add_content(key: Any, requirements: Path, model_dir: Path, environ: Mapping[str, str]) -> None:
    """Add all that ``pip install -r requirements`` in ``model_dir`` depends on to a hash.

    Args:
        key: A hash object of hashlib.
        requirements: In the archive.
        model_dir: The unpacked archive.
        environ: Variables that pip will see.

    Raises:
        BadRequest: If the file is larger than 4 MiB.
    """
    for name in sorted(environ):
        if name.startswith("PIP_"):
            key.update(f"{name}={environ[name]}\0".encode())
    _add_file(key, requirements, model_dir, environ, set())


def check_wheels_only(requirements: Path) -> None:
    """Check that pip runs no code of the archive's choice: project names with versions and markers, nothing else.

    Raises:
        BadRequest: If a line asks for more; the message quotes it.
    """
    for line in _lines(requirements, {}):
        without_hashes = re.sub(r"\s--hash=\S+", "", line)
        if re.search(r"\s-", without_hashes) or not _PLAIN.fullmatch(without_hashes.strip()):
            raise BadRequest(
                f"{requirements.name}: {line.strip()[:_SHOWN_CHARS]!r} is no plain requirement, and this server "
                "installs only wheels of named projects (zts_requirements=wheels)"
            )


def _add_file(key: Any, path: Path, model_dir: Path, environ: Mapping[str, str], seen: set[Path]) -> None:
    """Add a requirements or constraints file and what it names."""
    seen.add(path.resolve())
    key.update(b"\0requirements\0")
    for line in _lines(path, environ):
        key.update(line.encode("utf-8", "surrogateescape") + b"\n")
        for named in _paths_in(line, path.parent, model_dir):
            if named in seen:
                continue
            if named.is_dir():
                _add_tree(key, named)
            elif not named.is_file():
                if str(named) != os.devnull:
                    raise BadRequest(f"{path.name} names {named.name}, which is neither a file nor a folder")
            elif named.suffix in (".txt", ".in", ".pip", ".cfg"):
                _add_file(key, named, model_dir, environ, seen)
            else:
                _add_bytes(key, named)
            seen.add(named)


def _lines(path: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines that pip sees: continued ones joined, comments gone, variables filled in."""
    with open_regular(path) as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise BadRequest(f"{path.name} is larger than {_MAX_BYTES} bytes")
    text = data.decode("utf-8", "surrogateescape").replace("\\\r\n", "").replace("\\\n", "")
    for raw in text.splitlines():
        line = _COMMENT.sub("", raw).strip()
        if line:
            yield _VARIABLE.sub(lambda found: environ.get(found[1]) or found[0], line)


def _paths_in(line: str, folder: Path, model_dir: Path) -> Iterator[Path]:
    """Yield the files and folders that words of a line may mean; a word that names none costs a look only.

    pip takes paths relative to its working folder, and those of nested files relative to the file.
    """
    for word in dict.fromkeys(_SEPARATORS.split(line)):
        for prefix in ("-r", "-c", "-e", "-f"):  # pip takes -rmore.txt, too
            if word.startswith(prefix) and len(word) > len(prefix):
                yield from _existing(word[len(prefix) :], folder, model_dir)
        yield from _existing(word, folder, model_dir)


def _existing(word: str, folder: Path, model_dir: Path) -> Iterator[Path]:
    if len(word) > _MAX_PATH_CHARS:
        return
    is_url = word.startswith("file:")
    name = word.removeprefix("file:")
    if is_url and name.startswith("//"):
        name = "/" + name.lstrip("/")
    name = name.partition("#")[0].partition(";")[0]
    for form in {name, unquote(name), re.sub(r"\[[^\]]*\]$", "", name)}:
        if not form or "\0" in form:
            continue
        for base in {model_dir, folder}:
            try:
                # Most words mean nothing: a look at the name is ten times as fast as resolving it.
                if os.path.exists(os.path.join(base, form)):
                    path = (base / form).resolve()
                    if path != Path("/"):
                        yield path
            except OSError:
                continue  # too long a name, for one: it means no file


def _add_tree(key: Any, folder: Path) -> None:
    """Add names and bytes of all that is below a folder."""
    for path in sorted(folder.rglob("*")):
        key.update(b"\0" + os.fsencode(path.relative_to(folder)))
        if path.is_file():
            _add_bytes(key, path)


def _add_bytes(key: Any, path: Path) -> None:
    key.update(b"\0file\0")
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            key.update(chunk)
