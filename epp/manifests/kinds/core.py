# SPDX-License-Identifier: Apache-2.0
"""Kinds of Kubernetes itself: things are looked up in Secrets and ConfigMaps; a Service is a name to send to."""

from __future__ import annotations

from epp.manifests.fields import Fields, Harmless, Items, Shape, Text, Texts, Unsupported, harmless
from epp.manifests.kinds.kind import GATEWAY_API, NAME, PORT, Kind

REPLICAS = "epp/replicas"
"""Annotation of a Service or InferencePool: how many pods to simulate."""

_GRANT = Fields(
    {
        "from": Items(Fields({"group": Text(), "kind": NAME, "namespace": NAME}, ("kind", "namespace"))),
        "to": Items(Fields({"group": Text(), "kind": NAME, "name": Text()}, ("kind",))),
    },
    ("from", "to"),
)

_SERVICE: dict[str, Shape] = harmless(
    "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalTrafficPolicy healthCheckNodePort "
    "internalTrafficPolicy ipFamilies ipFamilyPolicy loadBalancerClass loadBalancerIP loadBalancerSourceRanges "
    "publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig trafficDistribution"
) | {
    "type": Text(("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")),
    "externalName": Text(),
    "ports": Items(Fields(harmless("appProtocol name nodePort protocol targetPort") | {"port": PORT}, ("port",))),
}

KINDS: dict[str, Kind] = {
    "Namespace": Kind(("",), ("v1",), {"spec": Harmless()}, namespaced=False, required=()),
    "ServiceAccount": Kind(
        ("",), ("v1",), harmless("automountServiceAccountToken imagePullSecrets secrets"), required=()
    ),
    "Secret": Kind(
        ("",),
        ("v1",),
        {"data": Texts(secret=True), "stringData": Texts(secret=True), "type": Text(), "immutable": Harmless()},
        required=(),
    ),
    "ConfigMap": Kind(
        ("",), ("v1",), {"data": Texts(), "binaryData": Harmless(), "immutable": Harmless()}, required=()
    ),
    "Service": Kind(("",), ("v1",), {"spec": Fields(_SERVICE)}, annotations=(REPLICAS,)),
    "ReferenceGrant": Kind((GATEWAY_API,), ("v1beta1", "v1"), {"spec": _GRANT}),
    "GatewayClass": Kind(
        (GATEWAY_API,),
        ("v1", "v1beta1"),
        {
            "spec": Fields(
                {
                    "controllerName": Text(),
                    "description": Harmless(),
                    "parametersRef": Unsupported("settings of the proxy are not read"),
                }
            )
        },
        namespaced=False,
    ),
}
