"""Unpacking: what is accepted, and that nothing bad gets out of an archive."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from zts.archive import unpack
from zts.errors import BadArchive


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, *members: tarfile.TarInfo, data: bytes = b"x") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GOOD = {"MAR-INF/MANIFEST.json": b"{}", "h.py": b"x = 1\n", "sub/a.txt": b"a"}


def test_mar_is_unpacked_as_it_is(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", GOOD)
    assert content(unpack(archive, tmp_path / "out")) == GOOD


def test_each_unpacking_has_a_folder_of_its_own(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", GOOD)
    first, second = unpack(archive, tmp_path / "out"), unpack(archive, tmp_path / "out")
    (first / "h.py").write_text("changed")
    (first / "mark").touch()
    assert content(second) == GOOD
    assert (first.parent, second.parent) == (tmp_path / "out", tmp_path / "out")


@pytest.mark.parametrize("name", ["a:b.mar", "a\nb.mar", "..x.mar", "é.mar", "x" * 200 + ".mar", "a b"])
def test_folder_of_an_oddly_named_file_can_stand_on_an_import_path(tmp_path: Path, name: str) -> None:
    folder = unpack(make_zip(tmp_path / name, GOOD), tmp_path / "out")
    assert folder.parent == tmp_path / "out"
    assert re.fullmatch(r"[A-Za-z0-9_-]+", folder.name) and len(folder.name) < 80


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tgz", "m.anything"])
def test_first_path_segment_of_a_tar_is_stripped(tmp_path: Path, name: str) -> None:
    members = [tar_member("m", tarfile.DIRTYPE), tar_member("m/MAR-INF/MANIFEST.json"), tar_member("m/sub/a.txt")]
    archive = make_tar(tmp_path / name, *members)
    assert content(unpack(archive, tmp_path / "out")) == {"MAR-INF/MANIFEST.json": b"x", "sub/a.txt": b"x"}


def test_tar_of_a_folders_content_works_too(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "m.tgz", tar_member("./MAR-INF/MANIFEST.json"), tar_member("./h.py"))
    assert set(content(unpack(archive, tmp_path / "out"))) == {"MAR-INF/MANIFEST.json", "h.py"}


def test_folder_is_used_in_place_and_an_only_subfolder_stands_for_it(tmp_path: Path) -> None:
    model = tmp_path / "store" / "m"
    model.mkdir(parents=True)
    (model / "h.py").touch()
    assert unpack(model, tmp_path / "out") == model
    assert unpack(tmp_path / "store", tmp_path / "out") == model
    assert not (tmp_path / "out").exists()


def symlink_in_zip(path: Path) -> Path:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("link/x", "y")
    return path


def encrypted_zip(path: Path) -> Path:
    data = bytearray(make_zip(path, {"h.py": b"x"}).read_bytes())
    data[6] |= 1  # local header's flags
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


def wrote(data: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


def cut(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


def turned(path: Path, at: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    return path


def plain_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tar_member("m/h.py"), io.BytesIO())
    return path


def odd_compression(path: Path) -> Path:
    data = bytearray(make_zip(path, {"h.py": b"x"}).read_bytes())
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 97  # WavPack
    path.write_bytes(data)
    return path


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "text": (wrote(b"hello\x07"), "bad.mar: it is neither a zip (.mar) nor a gzipped tar (.tar.gz), of 6 bytes"),
    "json": (
        wrote(b'{"error": "no such key"}\n'),
        "it is a JSON text (such as an error of a storage service) of 25 bytes",
    ),
    "xml": (wrote(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'), "it is an XML text (such as an"),
    "secret": (wrote(b"root:secret:0:0"), "bad.mar: it is a text of 15 bytes"),
    "empty": (wrote(b""), "Failed to save model: bad.mar: it is empty (0 bytes)"),
    "page": (wrote(b"\n<!DOCTYPE html><html>sign in</html>"), "it is a web page (HTML)"),
    "page without a type": (wrote(b"<!-- x -->\n<HTML lang=en>"), "it is a web page (HTML)"),
    "LFS pointer": (wrote(b"version https://git-lfs.github.com/spec/v1\noid x"), "it is a Git LFS pointer"),
    "xz": (wrote(b"\xfd7zXZ\x00\x00"), "it is packed with xz"),
    "weights": (wrote(b"\x80\x02}q\x00"), "it is a pickle, such as weights"),
    "plain tar": (lambda path: plain_tar(path), "it is a tar that is not compressed"),
    "cut zip": (lambda path: cut(make_zip(path, GOOD), 0.5), "it is a zip that was cut off"),
    "zip without its end": (lambda path: cut(make_zip(path, GOOD), 0.99), "it is a zip that was cut off"),
    "damaged zip": (lambda path: turned(make_zip(path, {"a": b"x" * 99}), 35), "it is damaged"),
    "odd compression": (lambda path: odd_compression(path), "it is packed in a way that is not known here"),
    "parent": (lambda path: make_zip(path, {"../../evil": b"x"}), "'../../evil' would leave"),
    "absolute": (lambda path: make_zip(path, {"/tmp/evil": b"x"}), "'/tmp/evil' would leave"),
    "parent in tar": (lambda path: make_tar(path, tar_member("m/../../evil")), "'../../evil' would leave"),
    "absolute in tar": (lambda path: make_tar(path, tar_member("m//tmp/evil")), "'/tmp/evil' would leave"),
    "symlink": (symlink_in_zip, "member 'link' is neither a file nor a folder"),
    "symlink in tar": (lambda path: make_tar(path, tar_member("m/l", tarfile.SYMTYPE, "/etc")), "neither a file"),
    "hard link in tar": (lambda path: make_tar(path, tar_member("m/l", tarfile.LNKTYPE, "/etc/passwd")), "neither"),
    "device in tar": (lambda path: make_tar(path, tar_member("m/d", tarfile.CHRTYPE)), "neither a file"),
    "truncated tar": (
        lambda path: (path.write_bytes(make_tar(path, tar_member("m/h.py")).read_bytes()[:40]), path)[1],
        "it is damaged (Compressed file ended",
    ),
    "gzip that is no tar": (wrote(gzip.compress(b"hello" * 999)), "it is gzipped, but holds no tar"),
    "tar cut in a member": (
        lambda path: cut(make_tar(path, tar_member("m/h.py"), data=os.urandom(99999)), 0.5),
        "damaged",
    ),
    "encrypted": (encrypted_zip, "its member 'h.py' is encrypted, and there is no password"),
    "file and folder of one name": (lambda path: make_zip(path, {"a": b"x", "a/b": b"x"}), "bad.mar"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_archive_is_refused_with_a_reason_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    make, words = BAD[kind]
    archive = make(tmp_path / "bad.mar")
    out = tmp_path / "deep" / "out"
    with pytest.raises(BadArchive) as caught:
        unpack(archive, out)
    assert words in caught.value.public_message
    assert "secret" not in caught.value.public_message
    assert not any(out.iterdir())
    assert not (tmp_path / "evil").exists() and not (tmp_path / "deep" / "evil").exists()


def test_content_for_which_there_is_no_room_is_refused_before_any_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_zip(tmp_path / "m.mar", {"a": b"0" * 6000})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    with pytest.raises(BadArchive, match=rf"has 6000 bytes, and {tmp_path}/out has room for 5000$"):
        unpack(archive, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_a_disk_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_tar(tmp_path / "m.tgz", tar_member("m/h.py"))

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(BadArchive, match=rf"^Failed to save model: m.tgz: No space left on device \({tmp_path}/out\)$"):
        unpack(archive, tmp_path / "out")


def test_content_above_the_limit_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.mar", {"a": b"0" * 600, "b": b"0" * 600})
    with pytest.raises(BadArchive, match="larger than 1000 bytes"):
        unpack(archive, tmp_path / "out", max_total_bytes=1000)


def test_zip_that_lies_about_its_size_writes_no_more_than_the_limit(tmp_path: Path) -> None:
    data = bytearray(make_zip(tmp_path / "m.mar", {"a": b"0" * 100_000}).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(mark) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "m.mar").write_bytes(data)
    with pytest.raises(BadArchive):
        unpack(tmp_path / "m.mar", tmp_path / "out", max_total_bytes=1000)
    assert not any((tmp_path / "out").iterdir())


def test_tar_above_the_limit_is_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "m.tgz", tar_member("m/a"), tar_member("m/b"), data=b"0" * 600)
    with pytest.raises(BadArchive, match="larger than 1000 bytes"):
        unpack(archive, tmp_path / "out", max_total_bytes=1000)


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_too_many_members_are_refused(tmp_path: Path, form: str) -> None:
    names = [f"m/{number}" for number in range(6)]
    path = tmp_path / "m.mar"
    if form == "zip":
        make_zip(path, dict.fromkeys(names, b""))
    else:
        make_tar(path, *map(tar_member, names))
    with pytest.raises(BadArchive, match="more than 5 members"):
        unpack(path, tmp_path / "out", max_members=5)


def test_missing_file_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="No such file"):
        unpack(tmp_path / "none.mar", tmp_path / "out")


def test_modes_in_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("run.sh")
    info.external_attr = 0o104777 << 16
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr(info, "x")
    assert os.stat(unpack(tmp_path / "m.mar", tmp_path / "out") / "run.sh").st_mode & 0o7777 & ~0o644 == 0
