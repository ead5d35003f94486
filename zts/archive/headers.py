"""Bounds for what an archive's format makes a reader hold before any content: lists, names, extended headers. Layer 3.

``tarfile`` and ``zipfile`` read a header in one piece, as long as the archive says it is. They read it here from a
file that refuses pieces above a bound. There is no key for these bounds: archives that need more are not made by
archivers.
"""

from __future__ import annotations

import struct
from typing import IO, Final

__all__ = [
    "MAX_DEPTH",
    "MAX_DIRECTORY_BYTES",
    "MAX_HEADER_BYTES",
    "MAX_HEADERS_BYTES",
    "MAX_NAME_BYTES",
    "MAX_SHOWN_CHARS",
    "HeadersTooLarge",
    "TarBytes",
    "ZipBytes",
    "shown",
]

# Of one member of a tar: names, extended attributes and the map of a sparse file with some 50,000 pieces fit.
MAX_HEADER_BYTES: Final = 1024 * 1024
# Of all members of a tar: 2.6 kB for each of 100,000; one to three blocks of 512 bytes are the rule.
MAX_HEADERS_BYTES: Final = 256 * 1024**2
# The list at the end of a zip: 335 bytes for each of 100,000 members, whose names may then have about 250.
MAX_DIRECTORY_BYTES: Final = 32 * 1024**2
# Linux opens no longer path.
MAX_NAME_BYTES: Final = 4096
# Folders in each other: what walks and removes trees in Python calls itself for each.
MAX_DEPTH: Final = 100
MAX_SHOWN_CHARS: Final = 200

# A pattern of tarfile in Python before 3.11.10 takes the square of such a run's length. Names have 255 at most.
_MAX_DIGITS: Final = 256
_ONLY_DIGITS: Final = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_LONG_NUMBER: Final = b"0" * (_MAX_DIGITS + 1)
# Before the list of a zip its reader looks for it in the last 64 KiB.
_TAIL_BYTES: Final = 128 * 1024
_DIRECTORY_ENTRY: Final = struct.Struct("<28xHHH12x")
_DIRECTORY_MARK: Final = b"PK\x01\x02"


class HeadersTooLarge(Exception):
    """A bound of this module is passed; the text completes "the archive is refused: …"."""


class TarBytes:
    """The bytes of a tar, for ``tarfile``.

    Args:
        file: The uncompressed tar, readable and seekable.

    Attributes:
        reads_headers: True: what is read now is counted and bounded. False: it is a member's content.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = MAX_HEADER_BYTES
        self._left_in_all = MAX_HEADERS_BYTES
        self.reads_headers = True

    def begin_member(self) -> None:
        """Count the headers of one more member."""
        self.reads_headers = True
        self._left = MAX_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes.

        Raises:
            HeadersTooLarge: If they are headers, and above the bounds.
        """
        if not self.reads_headers:
            return self._file.read(size)
        if not 0 <= size <= self._left:
            raise HeadersTooLarge(f"the headers of one of its members are larger than {MAX_HEADER_BYTES} bytes")
        data = self._file.read(size)
        self._left -= len(data)
        self._left_in_all -= len(data)
        if self._left_in_all < 0:
            raise HeadersTooLarge(f"the headers of its members are larger than {MAX_HEADERS_BYTES} bytes in all")
        if _LONG_NUMBER in data.translate(_ONLY_DIGITS):
            raise HeadersTooLarge(f"the headers of one of its members hold a number of more than {_MAX_DIGITS} digits")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()


class ZipBytes:
    """The bytes of a zip, for ``zipfile``: the list of members is looked at before objects are made of it.

    Args:
        file: The zip.
        max_members: Most members in the list.

    Attributes:
        reads_directory: False when the list has been read: what follows are members.
    """

    def __init__(self, file: IO[bytes], max_members: int) -> None:
        self._file = file
        self._max_members = max_members
        self.reads_directory = True

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes.

        Raises:
            HeadersTooLarge: If they are the list of members, and above the bounds.
        """
        if not self.reads_directory:
            return self._file.read(size)
        if size > MAX_DIRECTORY_BYTES:
            raise HeadersTooLarge(f"the list of its members is larger than {MAX_DIRECTORY_BYTES} bytes")
        data = self._file.read(size if size >= 0 else _TAIL_BYTES)
        if data.startswith(_DIRECTORY_MARK):
            self._check_directory(data)
        return data

    def _check_directory(self, data: bytes) -> None:
        at = members = 0
        while data.startswith(_DIRECTORY_MARK, at) and at + _DIRECTORY_ENTRY.size <= len(data):
            name, extra, comment = _DIRECTORY_ENTRY.unpack_from(data, at)
            members += 1
            if members > self._max_members:
                raise HeadersTooLarge(f"it holds more than {self._max_members} members")
            if name > MAX_NAME_BYTES:
                raise HeadersTooLarge(f"the name of one of its members has {name} bytes, more than {MAX_NAME_BYTES}")
            at += _DIRECTORY_ENTRY.size + name + extra + comment

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Leave the file to whoever opened it."""


def shown(name: str) -> str:
    """Return a member's name as an error may quote it.

    >>> shown("a" * 1000)[-5:]
    "aaa'…"
    """
    return repr(name) if len(name) <= MAX_SHOWN_CHARS else f"{name[:MAX_SHOWN_CHARS]!r}…"
