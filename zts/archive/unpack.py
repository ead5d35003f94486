"""Unpack a model archive without trusting it. Layer 3: disk.

Forms (TORCHSERVE.md 7.1): zip (``.mar``), gzipped tar (``.tar.gz``, ``.tgz``; the first path segment is stripped) and
plain folders, which are used in place. Each call makes a folder of its own: handlers write into it.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from zts.archive.content import what_it_is
from zts.archive.headers import MAX_DEPTH, MAX_NAME_BYTES, HeadersTooLarge, TarBytes, ZipBytes, shown
from zts.errors import BadArchive, ZtsError
from zts.regular_file import open_regular

__all__ = ["MAX_MEMBERS", "MAX_TOTAL_BYTES", "identity", "is_archive_name", "model_root", "unpack"]

MAX_TOTAL_BYTES: Final = 64 * 1024**3
MAX_MEMBERS: Final = 100_000
_ARCHIVE_SUFFIXES: Final = (".mar", ".zip", ".tar.gz", ".tgz", ".model")
# Bit of a member's flags.
_ENCRYPTED: Final = 0x1
# How members of a zip may be packed, as with TorchServe. Python's readers of the others hold all that a piece of input
# becomes: 45 bytes of bzip2 can be 45 MB.
_PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK_BYTES: Final = 1024 * 1024


def is_archive_name(name: str) -> bool:
    """Return whether a file of this name is taken for a model archive by ``load_models=all``."""
    return name.lower().endswith(_ARCHIVE_SUFFIXES)


def unpack(
    path: Path, target_dir: Path, *, max_total_bytes: int = MAX_TOTAL_BYTES, max_members: int = MAX_MEMBERS
) -> Path:
    """Make the archive's content available as a new folder and return that folder.

    Args:
        path: A zip, a gzipped tar or a folder; what a file is, is decided by its content.
        target_dir: Where the new folder is made; made (0700) if missing. Folders are not copied here.
        max_total_bytes: Most bytes that the content may have, declared and counted while writing.
        max_members: Most members inside, and most folders that are made for them. What the archive's headers may
            have is bounded by ``zts.archive.headers``.

    Raises:
        BadArchive: If the file is no archive, is damaged, is above a limit, holds anything but files and folders, or
            a member would land outside its folder. Nothing is left behind then.
    """
    if path.is_dir():
        return model_root(path.resolve())
    try:
        target_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The name is for people. It becomes part of the import path, where ':' separates.
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", path.name.split(".")[0])[:60]
        folder = Path(tempfile.mkdtemp(prefix=f"{stem}-", dir=target_dir))
    except OSError as exc:
        raise _bad(path, f"{exc.strerror} ({exc.filename})") from None
    try:
        _Unpacking(path, folder, max_total_bytes, max_members).run()
        folder.chmod(0o755)
    except OSError as exc:
        shutil.rmtree(folder, ignore_errors=True)
        where = f" ({target_dir})" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise _bad(path, f"{exc.strerror or exc}{where}") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return model_root(folder)


def identity(path: Path) -> str:
    """Return a text that is another one when the file was changed or replaced.

    Raises:
        OSError: If it cannot be looked at.
    """
    info = path.stat()
    known = f"{path.resolve()}\0{info.st_size}\0{info.st_mtime_ns}\0{info.st_ctime_ns}\0{info.st_ino}\0{info.st_dev}"
    return hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _bad(path: Path, reason: str = "") -> BadArchive:
    # The first words are TorchServe's text, which clients may look for.
    return BadArchive(f"Failed to save model: {path.name}" + (f": {reason}" if reason else ""))


def model_root(folder: Path) -> Path:
    """Return ``folder``, or its only subfolder when it holds nothing else (a layout that SageMaker makes)."""
    if (folder / "MAR-INF").exists():
        return folder
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        return entries[0]
    return folder


class _Unpacking:
    """One archive on its way to disk, with its budget of bytes and members."""

    def __init__(self, path: Path, target: Path, max_total_bytes: int, max_members: int) -> None:
        self._path = path
        self._target = target
        self._max_total_bytes = max_total_bytes
        self._max_members = max_members
        self._written = 0
        self._members = 0
        self._folders = 0

    def run(self) -> None:
        """Unpack everything.

        Raises:
            BadArchive: If anything about the archive is not as it must be.
        """
        open_regular(self._path).close()  # nobody waits at a named pipe that lies in the store
        try:
            if zipfile.is_zipfile(self._path):
                self._unzip()
            elif self._is_gzip():
                self._untar()
            else:
                raise _bad(self._path, what_it_is(self._path))
        except HeadersTooLarge as exc:
            raise _bad(self._path, str(exc)) from None
        except NotImplementedError as exc:
            raise _bad(self._path, f"it is packed in a way that is not known here ({exc})") from None
        except (ZtsError, OSError, MemoryError):
            raise
        except RecursionError:
            raise _bad(self._path, "it is damaged (headers of headers without end)") from None
        except Exception as exc:  # numbers that are none, places that are none: what the formats' readers stumble over
            raise _bad(self._path, f"it is damaged ({str(exc)[:200]})") from None

    def _is_gzip(self) -> bool:
        with self._path.open("rb") as file:
            return file.read(2) == b"\x1f\x8b"

    def _unzip(self) -> None:
        with self._path.open("rb") as file:
            source = ZipBytes(file, self._max_members)
            with zipfile.ZipFile(cast(IO[bytes], source)) as archive:
                source.reads_directory = False
                members = archive.infolist()
                declared = sum(member.file_size for member in members)
                self._check_declared(len(members), declared)
                self._check_room(declared)
                for member in members:
                    self._unzip_one(archive, member)

    def _unzip_one(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        name = member.filename
        if member.flag_bits & _ENCRYPTED:
            raise _bad(self._path, f"its member {shown(name)} is encrypted, and there is no password")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _bad(self._path, f"member {shown(name)} is neither a file nor a folder")
        place = self._place(name)
        if member.is_dir():
            self._make_folder(place)
            return
        if member.compress_type not in _PACKED:
            raise NotImplementedError(f"method {member.compress_type} of member {shown(name)}")
        with archive.open(member) as source:
            self._write(place, source)

    def _untar(self) -> None:
        with gzip.open(self._path) as file:
            source = TarBytes(cast(IO[bytes], file))
            with self._open_tar(source) as archive:
                for member in self._counted(archive, source):
                    self._untar_one(archive, member)

    def _untar_one(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if not (member.isreg() or member.isdir()):
            raise _bad(self._path, f"member {shown(member.name)} is neither a file nor a folder")
        if member.size < 0:
            raise _bad(self._path, f"it is damaged (member {shown(member.name)} has a size below 0)")
        _, slash, rest = member.name.partition("/")
        place = self._place(rest if slash else ("" if member.isdir() else member.name))
        if member.isdir():
            self._make_folder(place)
            return
        self._check_declared(self._members, self._written + member.size)
        if member.size > _CHUNK_BYTES:
            self._check_room(member.size)
        content = archive.extractfile(member)
        if content is None:
            raise _bad(self._path, f"member {shown(member.name)} cannot be read")
        with content:
            self._write(place, content)

    def _open_tar(self, source: TarBytes) -> tarfile.TarFile:
        try:
            return tarfile.open(fileobj=cast(IO[bytes], source), mode="r:")
        except tarfile.ReadError as exc:
            raise _bad(self._path, f"it is gzipped, but holds no tar, or is damaged ({exc})") from None

    def _counted(self, archive: tarfile.TarFile, source: TarBytes) -> Iterator[tarfile.TarInfo]:
        # One at a time, and none is kept: each may have a large header.
        while True:
            source.begin_member()
            member = archive.next()
            if member is None:
                return
            source.reads_headers = False
            cast(Any, archive).members.clear()
            self._members += 1
            self._check_declared(self._members, 0)
            yield member

    def _check_declared(self, members: int, total_bytes: int) -> None:
        if members > self._max_members:
            raise _bad(self._path, f"it holds more than {self._max_members} members")
        if total_bytes > self._max_total_bytes:
            raise _bad(self._path, f"its content is larger than {self._max_total_bytes} bytes")

    def _check_room(self, total_bytes: int) -> None:
        # Where runtime folders lie in memory, a disk that is filled first takes others with it.
        free = shutil.disk_usage(self._target).free
        if total_bytes > free:
            raise _bad(
                self._path, f"its content has {total_bytes} bytes, and {self._target.parent} has room for {free}"
            )

    def _place(self, name: str) -> Path:
        """Return where a member goes.

        Raises:
            BadArchive: If that is outside the target folder.
        """
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\0" in name:
            raise _bad(self._path, f"member {shown(name)} would leave the model's folder")
        if len(pure.parts) > MAX_DEPTH:
            raise _bad(self._path, f"member {shown(name)} lies more than {MAX_DEPTH} folders deep")
        if len(name) > MAX_NAME_BYTES:
            raise _bad(self._path, f"member {shown(name)} has a name of more than {MAX_NAME_BYTES} bytes")
        return self._target.joinpath(*pure.parts)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it; they are counted, for a name can stand for a hundred of them."""
        missing: list[Path] = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            self._folders += 1
            if self._folders > self._max_members:
                raise _bad(self._path, f"it holds more than {self._max_members} folders")
            new.mkdir()

    def _write(self, place: Path, source: IO[bytes]) -> None:
        self._make_folder(place.parent)
        # No links can exist below the target: we only ever make files and folders there.
        with open(place, "wb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o644)) as file:
            while chunk := source.read(_CHUNK_BYTES):
                self._written += len(chunk)
                self._check_declared(0, self._written)
                file.write(chunk)
