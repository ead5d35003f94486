"""Archives whose lists, names and headers are made to fill memory, and odd ones that are right and load.

Each bomb is unpacked in a process of its own whose memory is bounded: a reader that takes what it is told fails there.
"""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zts.archive import unpack
from zts.archive.headers import MAX_DEPTH, MAX_DIRECTORY_BYTES, MAX_HEADER_BYTES
from zts.errors import BadArchive

# What Python with the archive module takes is 40 MB; the rest is room for what is within the bounds.
_MEMORY_BYTES = 256 * 1024**2
_CHILD = """
import resource, sys
from pathlib import Path
from zts.archive import unpack
from zts.errors import BadArchive
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), max_total_bytes=1000)
except BadArchive as exc:
    print(exc.public_message)
"""


def unpacked_in_little_memory(archive: Path, target: Path) -> str:
    """Return the words with which an archive is refused where 256 MiB of address space must do."""
    command = [sys.executable, "-c", _CHILD, str(archive), str(target), str(_MEMORY_BYTES)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.stderr == ""
    return child.stdout


def header(name: str, kind: bytes, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def gzipped(path: Path, pieces: Iterator[bytes]) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for piece in pieces:
            file.write(piece)
    return path


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def record(key: str, value: str) -> bytes:
    """Return one record of a pax header: its own length, key and value."""
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


END = bytes(2 * tarfile.BLOCKSIZE)


def long_header(kind: bytes) -> Iterator[bytes]:
    yield header("x", kind, 300 * 1024**2)
    for _ in range(300):
        yield b"a" * 1024**2
    yield header("m/h.py", b"0") + END


def negative_header() -> Iterator[bytes]:
    """A header "of -512 bytes", for which a reader may take all that is left."""
    info = bytearray(header("x", b"x"))
    info[124:136] = (b"\xff" * 10) + b"\xfe\x00"
    info[148:156] = b"        "
    info[148:156] = b"%06o\0 " % sum(info)
    yield bytes(info)
    for _ in range(400):
        yield bytes(1024**2)


def nested_headers(kind: bytes) -> Iterator[bytes]:
    data = padded(record("comment", "x") if kind != b"L" else b"name")
    for _ in range(5000):
        yield header("x", kind, len(data)) + data
    yield header("m/h.py", b"0") + END


def sparse_map() -> Iterator[bytes]:
    """An old GNU sparse file whose map goes on for 400 MB: blocks of 21 entries, each saying that one more follows."""
    info = bytearray(header("m/s", b"S"))
    info[482] = 1  # isextended
    info[148:156] = b"        "
    info[148:156] = b"%06o\0 " % sum(info)
    yield bytes(info)
    block = (b"00000000001\0" * 42).ljust(504, b"\0") + b"\x01" + bytes(7)
    for _ in range(8000):
        yield block * 100


def pax(*records: bytes, then: bytes = b"") -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        data = b"".join(records)
        yield header("x", b"x", len(data)) + padded(data) + (then or header("m/h.py", b"0")) + END

    return pieces


def many_members_with_large_headers() -> Iterator[bytes]:
    """Each header is within its bound; a reader that keeps them all is not."""
    data = record("comment", "c" * 900_000)
    for number in range(300):
        yield header("x", b"x", len(data)) + padded(data) + header(f"m/{number}", b"0")
    yield END


TARS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "extended header": (lambda: long_header(b"x"), f"larger than {MAX_HEADER_BYTES} bytes"),
    "global header": (lambda: long_header(b"g"), f"larger than {MAX_HEADER_BYTES} bytes"),
    "long name": (lambda: long_header(b"L"), f"larger than {MAX_HEADER_BYTES} bytes"),
    "long link": (lambda: long_header(b"K"), f"larger than {MAX_HEADER_BYTES} bytes"),
    "Solaris header": (lambda: long_header(b"X"), f"larger than {MAX_HEADER_BYTES} bytes"),
    "negative header": (negative_header, f"larger than {MAX_HEADER_BYTES} bytes"),
    "sparse map": (sparse_map, f"larger than {MAX_HEADER_BYTES} bytes"),
    "nested extended headers": (lambda: nested_headers(b"x"), "headers"),
    "nested global headers": (lambda: nested_headers(b"g"), "headers"),
    "nested names": (lambda: nested_headers(b"L"), "headers"),
    "large headers, many members": (many_members_with_large_headers, "headers of its members are larger than"),
    "digits": (pax(record("comment", "1" * 100_000)), "a number of more than 256 digits"),
    "sparse map of no numbers": (pax(record("GNU.sparse.map", "a,b")), "is damaged"),
    "sparse size that is no number": (
        pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.realsize", "z")),
        "is damaged",
    ),
    "negative size": (pax(record("size", "-512")), "has a size below 0"),
    "large sparse file": (
        pax(record("GNU.sparse.size", "99999999999"), record("GNU.sparse.numblocks", "0")),
        "larger than 1000 bytes",
    ),
    "a name of many folders": (pax(record("path", "m/" + "a/" * 2000 + "x")), f"more than {MAX_DEPTH} folders deep"),
    "a name of 900 kB": (pax(record("path", "m/" + "a" * 900_000)), "more than 4096 bytes"),
}


@pytest.mark.parametrize("kind", TARS)
def test_tar_is_refused_before_its_headers_fill_memory(tmp_path: Path, kind: str) -> None:
    make, words = TARS[kind]
    archive = gzipped(tmp_path / "m.tar.gz", make())
    answer = unpacked_in_little_memory(archive, tmp_path / "out")
    assert words in answer and len(answer) < 1000
    assert not any((tmp_path / "out").iterdir())


def end_of_list(entries: int, size: int, offset: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, min(entries, 0xFFFF), min(entries, 0xFFFF), size, offset, 0)


def entry(name: bytes, extra: bytes = b"", comment: bytes = b"", *, size: int = 0) -> bytes:
    lengths = (len(name), len(extra), len(comment))
    fixed = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, size, size, *lengths, 0, 0, 0, 0)
    return fixed + name + extra + comment


def zip_of(*pieces: tuple[bytes, int], claimed: int | None = None) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        with path.open("wb") as file:
            file.write(b"PK\x03\x04" + bytes(26))
            size = 0
            for piece, times in pieces:
                size += len(piece) * times
                for _ in range(times):
                    file.write(piece)
            count = sum(times for _, times in pieces) if claimed is None else claimed
            file.write(end_of_list(count, size, 30))
        return path

    return make


def hole_before_the_end(path: Path) -> Path:
    """A sparse file of 1 GB whose list of members is said to be nearly all of it."""
    with path.open("wb") as file:
        file.write(b"PK\x03\x04" + bytes(26))
        file.seek(1024**3)
        file.write(end_of_list(1, 1024**3 - 30, 30))
    return path


def long_zip64(path: Path) -> Path:
    """The same by the fields of zip64."""
    with path.open("wb") as file:
        file.write(b"PK\x03\x04" + bytes(26))
        file.seek(1024**3)
        at, size = file.tell(), 1024**3 - 30
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, 30))
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    return path


def packed_by_bzip2(path: Path) -> Path:
    """Python's reader of bzip2 holds all that a piece of input becomes, however little was asked for."""
    block = bz2.compress(bytes(45 * 1024**2))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("h.py", b"x")
    data = path.read_bytes()
    packed = bz2.compress(b"x")
    assert packed in data
    path.write_bytes(data.replace(packed, block))
    return path


ZIPS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "long list": (hole_before_the_end, f"the list of its members is larger than {MAX_DIRECTORY_BYTES} bytes"),
    "long list by zip64": (long_zip64, f"the list of its members is larger than {MAX_DIRECTORY_BYTES} bytes"),
    "many members": (zip_of((entry(b"a"), 700_000)), "holds more than 100000 members"),
    "many members, said to be one": (zip_of((entry(b"a"), 700_000), claimed=1), "holds more than 100000 members"),
    "long names": (zip_of((entry(b"n" * 65535), 500)), "has 65535 bytes, more than 4096"),
    "long comments": (
        zip_of((entry(b"n", b"", b"c" * 65535), 600)),
        f"the list of its members is larger than {MAX_DIRECTORY_BYTES} bytes",
    ),
    "sum of sizes": (zip_of((entry(b"a", size=0xFFFFFFFE), 90_000)), "larger than 1000 bytes"),
    "bzip2": (packed_by_bzip2, "packed in a way that is not known here (method 12"),
    "a name of many folders": (zip_of((entry(b"a/" * 2000), 1)), f"more than {MAX_DEPTH} folders deep"),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_zip_is_refused_before_its_list_fills_memory(tmp_path: Path, kind: str) -> None:
    make, words = ZIPS[kind]
    answer = unpacked_in_little_memory(make(tmp_path / "m.mar"), tmp_path / "out")
    assert words in answer and len(answer) < 1000
    assert not any((tmp_path / "out").iterdir())


def test_folders_that_names_stand_for_are_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        for number in range(10):
            archive.writestr(f"{number}/" * 50 + "x", b"")
    with pytest.raises(BadArchive, match="more than 400 folders"):
        unpack(tmp_path / "m.mar", tmp_path / "out", max_members=400)
    assert not any((tmp_path / "out").iterdir())


# ---------------------------------------------------------------- right ones


def test_tar_with_long_names_attributes_and_a_sparse_file_loads(tmp_path: Path) -> None:
    name = "m/" + "ü" * 100 + "/" + "模" * 80 + "/" + "x" * 200
    data = record("path", name) + record("SCHILY.xattr.user.note", "n" * 60_000)
    sparse_name = "m/sparse"
    sparse = record("GNU.sparse.size", "1000000") + record("GNU.sparse.numblocks", "2")
    sparse += record("GNU.sparse.map", "0,512,999488,512") + record("path", sparse_name)

    def pieces() -> Iterator[bytes]:
        yield header("g", b"g", len(record("comment", "0" * 40))) + padded(record("comment", "0" * 40))
        yield header("x", b"x", len(data)) + padded(data) + header("m/short", b"0", 3) + padded(b"abc")
        yield header("x", b"x", len(sparse)) + padded(sparse) + header("m/s", b"0", 1024) + b"s" * 1024
        yield END

    folder = unpack(gzipped(tmp_path / "m.tar.gz", pieces()), tmp_path / "out")
    assert (folder / name.removeprefix("m/")).read_bytes() == b"abc"
    assert (folder / "sparse").read_bytes() == b"s" * 512 + bytes(998_976) + b"s" * 512


def test_gnu_tar_with_long_names_loads(tmp_path: Path) -> None:
    names = [f"m/{number % 3}{'d' * 120}/{number}-{'ü' * 100}" for number in range(300)]
    with tarfile.open(tmp_path / "m.tgz", "w:gz", format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"ab"))
    folder = unpack(tmp_path / "m.tgz", tmp_path / "out")
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        name.removeprefix("m/") for name in names
    }


def test_zip_with_many_members_long_names_and_zip64_loads(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        for number in range(5000):
            archive.writestr(f"{number % 50}/{number}-{'模' * 60}", b"x")
        with archive.open("large", "w", force_zip64=True) as file:
            file.write(b"y" * 100_000)
        archive.comment = b"c" * 65535
    folder = unpack(tmp_path / "m.mar", tmp_path / "out")
    assert sum(1 for path in folder.rglob("*") if path.is_file()) == 5001
    assert (folder / "large").stat().st_size == 100_000
