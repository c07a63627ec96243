# SPDX-License-Identifier: Apache-2.0
"""The upstream filter that puts a key into requests to one cluster, over whatever the client sent in that header.

It runs behind all routing and picking, in the cluster's own filter chain: a request that is retried or that goes
elsewhere never carries another cluster's key. A key that cannot be read means 401, not a request without it.
"""

from __future__ import annotations

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.credential_injector import v3 as injector
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec import v3 as codec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as manager
from envoy_data_plane.envoy.extensions.http.injected_credentials.generic import v3 as generic
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls

from epp.local.gateway.messages import extension, http_filter
from epp.local.gateway.secrets import SecretFiles
from epp.manifests.topology import ApiKey


def injection(cluster: str, key: ApiKey) -> list[manager.HttpFilter]:
    """The upstream filters of `cluster`; its key is the static secret of the cluster's name."""
    credential = generic.Generic(
        credential=tls.SdsSecretConfig(name=cluster),
        header=key.header,
        header_value_prefix=key.prefix,
    )
    return [
        http_filter(
            "envoy.filters.http.credential_injector",
            injector.CredentialInjector(
                overwrite=True, credential=extension("envoy.http.injected_credentials.generic", credential)
            ),
        ),
        http_filter("envoy.filters.http.upstream_codec", codec.UpstreamCodec()),
    ]


def secret(cluster: str, secrets: SecretFiles) -> tls.Secret:
    """The key of `cluster`, by the name of its file."""
    source = core.DataSource(filename=str(secrets.key_file(cluster)))
    return tls.Secret(name=cluster, generic_secret=tls.GenericSecret(secret=source))
