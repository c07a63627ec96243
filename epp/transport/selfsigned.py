# SPDX-License-Identifier: Apache-2.0
"""A self-signed certificate made at start, for clients that do not verify (Envoy towards an endpoint picker)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_ORGANIZATION = "Inference Ext"
_YEARS = 10
_SKEW = timedelta(hours=1)
"""Valid a little before now: the clocks of two nodes differ."""


def self_signed() -> tuple[bytes, bytes]:
    """A P-256 certificate for `localhost`, valid for ten years, and its key, both PEM. Takes under a millisecond."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8
    return certificate.public_bytes(pem), key.private_bytes(pem, private, serialization.NoEncryption())
