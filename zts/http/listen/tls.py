"""TLS for the REST addresses: certificate and key from PEM files, from a keystore, or made for the occasion.

TorchServe's settings (TORCHSERVE.md 5.2 and 10.2), but TLS 1.2 and 1.3 with the ciphers of today. Keystores and
self-signed certificates need the package ``cryptography`` (``zts[tls]``) or, without it, the program ``openssl``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from zts.clock import wall_time_s
from zts.errors import ConfigError
from zts.http.listen.certificates import from_pkcs12, self_signed
from zts.regular_file import read_regular
from zts.settings import Settings

__all__ = ["server_context"]

_JKS_MAGIC: Final = b"\xfe\xed\xfe\xed"
_SELF_SIGNED_FILE: Final = "self_signed.pem"
_MAX_BYTES: Final = 16 << 20
# The certificate is valid for a year; an HTTP process that starts later makes another one.
_MAX_AGE_S: Final = 300 * 86_400.0


def server_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS side of an address whose setting says ``https``.

    Raises:
        ConfigError: If a file cannot be used; the message names it and says what to do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.private_key_file or settings.certificate_file:
        _load_files(context, settings)
    elif settings.keystore:
        _load_pem(context, _keystore_pem(settings), f"keystore={settings.keystore}")
    else:
        _load_pem(context, _self_signed_pem(Path(settings.runtime_dir)), "the self-signed certificate")
    return context


def _load_files(context: ssl.SSLContext, settings: Settings) -> None:
    certificate, key = settings.certificate_file, settings.private_key_file
    if not certificate or not key:
        missing = "certificate_file" if key else "private_key_file"
        raise ConfigError(f"https needs certificate_file and private_key_file; {missing} is not set")
    with contextlib.ExitStack() as opened:
        pair = []
        for name, path in (("certificate_file", certificate), ("private_key_file", key)):
            try:
                data = read_regular(path, _MAX_BYTES)
            except FileNotFoundError:
                raise ConfigError(f"{name}={path}: there is no such file that can be read") from None
            except OSError as exc:
                raise ConfigError(f"{name}={path} cannot be read: {exc.strerror}") from None
            pair.append(opened.enter_context(_in_memory(data)))
        _load_pair(context, settings, pair)


def _load_pair(context: ssl.SSLContext, settings: Settings, pair: Sequence[str]) -> None:
    certificate, key = settings.certificate_file, settings.private_key_file
    try:
        context.load_cert_chain(pair[0], pair[1], password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as exc:
        raise ConfigError(
            f"certificate_file={certificate} and private_key_file={key} cannot be used: {_why(exc)}; "
            "both must be PEM, the key without a password and belonging to the certificate"
        ) from None


def _no_password() -> bytes:
    # Asked for one OpenSSL would prompt on the terminal; this makes it fail instead.
    return b""


def _why(exc: Exception) -> str:
    return getattr(exc, "reason", None) or getattr(exc, "strerror", None) or str(exc)


def _keystore_pem(settings: Settings) -> bytes:
    path = settings.keystore
    try:
        data = read_regular(path, _MAX_BYTES)
    except OSError as exc:
        raise ConfigError(f"keystore={path} cannot be read: {exc.strerror}") from None
    if data.startswith(_JKS_MAGIC):
        raise ConfigError(
            f"keystore={path} is a Java keystore, which only Java reads. Convert it once: "
            f"keytool -importkeystore -srckeystore {path} -destkeystore {Path(path).stem}.p12 -deststoretype PKCS12 "
            "and set keystore to the new file, keystore_type=PKCS12"
        )
    return from_pkcs12(data, settings.keystore_pass, f"keystore={path}")


def _load_pem(context: ssl.SSLContext, pem: bytes, what: str) -> None:
    try:
        with _in_memory(pem) as path:
            context.load_cert_chain(path, password=_no_password)
    except (ssl.SSLError, OSError) as exc:
        raise ConfigError(f"{what} cannot be used for https: {_why(exc)}") from None


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """Give ``data`` a path for as long as the block runs: the ssl module reads files only, and opens them itself."""
    descriptor = os.memfd_create("zts-tls")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _self_signed_pem(runtime_dir: Path) -> bytes:
    """Return key and certificate that all HTTP processes of the instance share, made by the first."""
    path = runtime_dir / _SELF_SIGNED_FILE
    with contextlib.suppress(OSError):
        if wall_time_s() - path.stat().st_mtime < _MAX_AGE_S:
            return read_regular(path, _MAX_BYTES)
        path.unlink()
    pem = self_signed()
    temporary = runtime_dir / f".{_SELF_SIGNED_FILE}.{secrets.token_hex(4)}"
    try:
        runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename it leaves the one of a process that was faster
        temporary.unlink()
        return read_regular(path, _MAX_BYTES)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from None
