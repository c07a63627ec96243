# SPDX-License-Identifier: Apache-2.0
"""TLS from Envoy to what is behind it: verified for backends, unverified for endpoint pickers, as gateways do."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls

from epp.contract.errors import StartError
from epp.local.gateway.messages import exactly, inline, packed
from epp.manifests.topology import Tls

SYSTEM_ROOTS = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Red Hat, Fedora
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),  # Alpine without ca-certificates, macOS
)


def system_roots(candidates: Sequence[Path] = SYSTEM_ROOTS) -> Path:
    """The file with the system's certificate authorities. Raises `StartError` with the remedy."""
    for path in candidates:
        if path.is_file():
            return path
    places = ", ".join(map(str, candidates))
    raise StartError(f"no certificate authorities of the system found ({places}): install the package ca-certificates")


def verified(wish: Tls, roots: Path | None) -> core.TransportSocket:
    """TLS to a backend whose certificate must be for `wish.hostname`; `roots` None: the system's, where asked for."""
    try:
        ipaddress.ip_address(wish.hostname)
    except ValueError:
        server_name, kind = wish.hostname, tls.SubjectAltNameMatcherSanType.DNS
    else:
        # A server name is never an address (RFC 6066), yet a certificate may be for one.
        server_name, kind = "", tls.SubjectAltNameMatcherSanType.IP_ADDRESS
    authority = inline(wish.ca_pem) if wish.ca_pem else core.DataSource(filename=str(roots or system_roots()))
    validation = tls.CertificateValidationContext(
        trusted_ca=authority,
        match_typed_subject_alt_names=[tls.SubjectAltNameMatcher(san_type=kind, matcher=exactly(wish.hostname))],
    )
    common = tls.CommonTlsContext(
        tls_params=tls.TlsParameters(
            tls_minimum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_2,
            # As a client Envoy stops at 1.2 unless told otherwise.
            tls_maximum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_3,
        ),
        validation_context=validation,
    )
    return _socket(tls.UpstreamTlsContext(sni=server_name, common_tls_context=common))


def unverified() -> core.TransportSocket:
    """TLS that takes any certificate: an endpoint picker signs its own."""
    return _socket(tls.UpstreamTlsContext())


def _socket(context: tls.UpstreamTlsContext) -> core.TransportSocket:
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))
