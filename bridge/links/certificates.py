"""When a certificate expires, and advice on a TLS handshake that failed.

The standard library reads only the expiry of a peer's certificate; that of a file is read from its DER here. Pure.
Section numbers are those of RFC 5280.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from enum import IntEnum

from bridge.timing import clock_is_set

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)


class _Tag(IntEnum):
    """Identifier octets (X.690, 8.1.2) of the elements up to ``notAfter``."""

    INTEGER = 0x02
    UTC_TIME = 0x17
    GENERALIZED_TIME = 0x18
    SEQUENCE = 0x30
    VERSION = 0xA0  # [0], constructed


ENCRYPTED_KEY = "the private key has a passphrase: remove it with `openssl pkey -in OLD -out NEW`"

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"})
"""OpenSSL's reasons (``ssl.SSLError.reason``) when the peer doesn't speak TLS or closes the connection."""

_UNKNOWN_AUTHORITY = frozenset({18, 19, 20})
"""X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, …_SELF_SIGNED_CERT_IN_CHAIN, …_UNABLE_TO_GET_ISSUER_CERT_LOCALLY (OpenSSL's
x509_vfy.h), as in ``ssl.SSLCertVerificationError.verify_code``.
"""


_DATES = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def handshake_advice(exc: BaseException, now: float, *, ca_file: str | None = None) -> str:
    """Advice to append to the message of a failed TLS handshake; empty if there is none.

    Args:
        exc: the failure.
        now: the wall clock.
        ca_file: the certificate authorities that the peer was checked against; None: those of the system.
    """
    if getattr(exc, "verify_code", None) in _DATES:
        clock = f"the clock of this machine says {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC"
        return f"; {clock}, {'is that right?' if clock_is_set(now) else 'it is not set: set it'}"
    if getattr(exc, "verify_code", None) in _UNKNOWN_AUTHORITY:
        if ca_file is not None:
            return f"; {ca_file}, the file of ca_file, has no certificate of the authority that issued it"
        return "; if your own certificate authority issued it, set ca_file"
    if isinstance(exc, ConnectionResetError) or getattr(exc, "reason", None) in _NO_TLS:
        return "; this port doesn't seem to speak TLS"
    return ""


def not_after(pem: bytes) -> float | None:
    """When the first certificate of a PEM file expires, in seconds since the epoch; None if it can't be read.

    The first certificate is the client's; intermediate authorities follow it.
    """
    found = _PEM.search(pem)
    if found is None:
        return None
    try:
        return _not_after(base64.b64decode(b"".join(found[1].split()), validate=True))
    except (binascii.Error, _NotDer):
        return None


class _NotDer(Exception):
    """The bytes are not a certificate."""


def _not_after(der: bytes) -> float:
    certificate, _ = _element(der, _Tag.SEQUENCE)  # 4.1
    tbs, _ = _element(certificate, _Tag.SEQUENCE)  # 4.1.2
    if tbs[:1] == bytes((_Tag.VERSION,)):
        _, tbs = _element(tbs, _Tag.VERSION)
    _, tbs = _element(tbs, _Tag.INTEGER)  # serialNumber
    _, tbs = _element(tbs, _Tag.SEQUENCE)  # signature
    _, tbs = _element(tbs, _Tag.SEQUENCE)  # issuer
    validity, _ = _element(tbs, _Tag.SEQUENCE)  # 4.1.2.5
    _, end = _element(validity, _Tag.UTC_TIME, _Tag.GENERALIZED_TIME)  # notBefore
    time, _ = _element(end, _Tag.UTC_TIME, _Tag.GENERALIZED_TIME)
    return _seconds(time, _Tag(end[0]))


def _element(data: bytes, *expected: _Tag) -> tuple[bytes, bytes]:
    """The contents of the first element and the bytes after it.

    Raises:
        _NotDer: it is incomplete or has none of the expected tags.
    """
    if len(data) < 2 or data[0] not in expected:
        raise _NotDer
    size, start = data[1], 2
    if size >= 0x80:  # X.690, 8.1.3.5: long form; 0x80 itself is the indefinite form, which is not DER
        octets = size & 0x7F
        start += octets
        if not 1 <= octets <= 4 or len(data) < start:
            raise _NotDer
        size = int.from_bytes(data[2:start], "big")
    if len(data) - start < size:
        raise _NotDer
    return data[start : start + size], data[start + size :]


def _seconds(time: bytes, tag: _Tag) -> float:
    """The time in seconds since the epoch. Both forms include seconds and end in Z (4.1.2.5.1, 4.1.2.5.2)."""
    digits = 12 if tag == _Tag.UTC_TIME else 14
    if not re.fullmatch(rb"[0-9]{%d}Z" % digits, time):
        raise _NotDer
    text = time[:-1].decode()
    if tag == _Tag.UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    try:
        moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as exc:
        raise _NotDer from exc
    return moment.timestamp()
