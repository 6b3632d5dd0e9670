"""The end of a certificate, read from what trustme wrote, and from what nobody would."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from bridge.links.certificates import handshake_advice, not_after

END = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
LATE_END = datetime(2050, 1, 1, tzinfo=UTC)
"""From 2050 on the time is a GeneralizedTime (RFC 5280, 4.1.2.5)."""


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def element(tag: int, *contents: bytes) -> bytes:
    inside = b"".join(contents)
    size = bytes((len(inside),)) if len(inside) < 128 else b"\x82" + len(inside).to_bytes(2, "big")
    return bytes((tag,)) + size + inside


def certificate(end: bytes, *, version: bytes = b"") -> bytes:
    """The least that leads to the end: serial number, signature, issuer, validity."""
    begin = element(0x17, b"200101000000Z")
    parts = element(0x02, b"\x01"), element(0x30), element(0x30), element(0x30, begin, end)
    return element(0x30, element(0x30, version, *parts))


@pytest.mark.parametrize("code", [9, 10])
@pytest.mark.parametrize(
    ("now", "says"),
    [(60.0, "says 1970-01-01 00:01 UTC, it is not set: set it"), (1.8e9, "says 2027-01-15 08:00 UTC, is that right?")],
)
def test_a_certificate_refused_for_its_dates_is_answered_with_the_clock(code: int, now: float, says: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code

    assert handshake_advice(error, now) == f"; the clock of this machine {says}"


@pytest.mark.parametrize("end", [END, LATE_END, datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_the_end_of_a_certificate_is_read(end: datetime) -> None:
    issued = trustme.CA().issue_cert("bridge.test", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=end)

    assert not_after(issued.cert_chain_pems[0].bytes()) == end.timestamp()


def test_of_a_file_with_key_and_chain_the_first_certificate_counts() -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("bridge.test", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=END)
    file = b"# a remark\n" + issued.private_key_and_cert_chain_pem.bytes() + authority.cert_pem.bytes()

    assert not_after(file) == END.timestamp()
    assert not_after(file.replace(b"\n", b"\r\n")) == END.timestamp()


@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        (0x17, b"491231235959Z", datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (0x17, b"500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (0x18, b"99991231235959Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (0x17, b"260230000000Z", None),
        (0x17, b"2601010000Z", None),
        (0x17, b"260101000000+0100", None),
        (0x17, "٢٦٠١٠١٠٠٠٠٠٠Z".encode(), None),
        (0x18, b"20260101000000.5Z", None),
        (0x18, b"00000101000000Z", None),
        (0x02, b"260101000000Z", None),
    ],
)
def test_times_are_read_as_the_standard_says_and_no_others(tag: int, text: bytes, expected: datetime | None) -> None:
    found = not_after(pem(certificate(element(tag, text))))

    assert found == (None if expected is None else expected.timestamp())


def test_a_certificate_of_either_version_is_read() -> None:
    end = element(0x17, b"300101000000Z")

    assert not_after(pem(certificate(end))) == not_after(pem(certificate(end, version=element(0xA0, b"\x02\x01\x02"))))


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----",
        b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
        pem(b"\x30\x80\x00\x00"),
        pem(b"\x30\x89" + b"\xff" * 9),
        pem(b"\x30\x84\x00"),
        pem(b"\x30"),
    ],
)
def test_what_is_no_certificate_has_no_end(file: bytes) -> None:
    assert not_after(file) is None


@given(st.binary())
def test_no_bytes_are_an_error(der: bytes) -> None:
    assert not_after(der) is None
    not_after(pem(der))


@given(st.data())
def test_no_damage_to_a_certificate_is_an_error(data: st.DataObject) -> None:
    der = bytearray(certificate(element(0x17, b"300101000000Z"), version=element(0xA0, b"\x02\x01\x02")))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))

    end = not_after(pem(bytes(der[: data.draw(st.integers(0, len(der)))])))

    assert end is None or isinstance(end, float)
