"""Make a self-signed certificate, and read PKCS12: with ``cryptography`` if it is installed, else with ``openssl``."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from zts.clock import wall_time_s
from zts.errors import ConfigError

__all__ = ["from_pkcs12", "self_signed"]

_DAYS: Final = 365
_PROGRAM_TIMEOUT_S: Final = 30.0
_PASSWORD_VARIABLE: Final = "ZTS_KEYSTORE_PASS"  # noqa: S105 - a variable's name


def from_pkcs12(data: bytes, password: str, what: str) -> bytes:
    """Return key and certificates of a PKCS12 keystore as PEM.

    Args:
        data: The file's content.
        password: Its password.
        what: How errors name it.

    Raises:
        ConfigError: If it is no such keystore, the password is wrong, or nothing here can read it.
    """
    if _cryptography() is None:
        return _pkcs12_by_program(data, password, what)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12

    try:
        key, certificate, others = pkcs12.load_key_and_certificates(data, password.encode() or None)
    except ValueError as exc:
        raise ConfigError(f"{what} cannot be read as PKCS12: {exc}") from None
    if key is None or certificate is None:
        raise ConfigError(f"{what} holds no key with its certificate")
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in [certificate, *others])


def self_signed() -> bytes:
    """Return a new key and a certificate for this host, PEM, valid for a year.

    Raises:
        ConfigError: If nothing here can make one.
    """
    if _cryptography() is None:
        return _self_signed_by_program()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _host())])
    now = datetime.fromtimestamp(wall_time_s(), UTC)
    names = [x509.DNSName(host) for host in {"localhost", _host()}]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem + bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _host() -> str:
    # A common name has at most 64 characters.
    return socket.gethostname()[:64] or "localhost"


def _cryptography() -> Any:
    try:
        import cryptography
    except ImportError:
        return None
    return cryptography


def _pkcs12_by_program(data: bytes, password: str, what: str) -> bytes:
    command = ["pkcs12", "-nodes", "-passin", f"env:{_PASSWORD_VARIABLE}"]
    done = _openssl(command, what, data, {_PASSWORD_VARIABLE: password})
    if done.returncode:
        # Keystores of old Javas use ciphers that OpenSSL 3 has put aside.
        done = _openssl([*command, "-legacy"], what, data, {_PASSWORD_VARIABLE: password})
    if done.returncode or b"PRIVATE KEY" not in done.stdout:
        raise ConfigError(f"{what} cannot be read as PKCS12 (is keystore_pass right?): {_last_line(done.stderr)}")
    return done.stdout


def _self_signed_by_program() -> bytes:
    what = "https without certificate_file and private_key_file"
    done = _openssl(
        [
            *(
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                str(_DAYS),
            ),
            *("-subj", f"/CN={_host()}", "-addext", f"subjectAltName=DNS:localhost,DNS:{_host()}"),
            *("-keyout", "-", "-out", "-"),
        ],
        what,
    )
    if done.returncode:
        raise ConfigError(f"{what}: openssl makes no self-signed certificate: {_last_line(done.stderr)}")
    return done.stdout


def _openssl(
    arguments: list[str], what: str, data: bytes = b"", secret: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("openssl")
    if program is None:
        raise ConfigError(f"{what}: install zts[tls] (the package cryptography), or the program openssl")
    try:
        return subprocess.run(
            [program, *arguments],
            input=data,
            capture_output=True,
            timeout=_PROGRAM_TIMEOUT_S,
            env={**os.environ, **(secret or {})},
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{what}: openssl did not answer") from None


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"
