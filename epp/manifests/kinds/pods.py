# SPDX-License-Identifier: Apache-2.0
"""The fields of a pod: no pod is started from a manifest, only arguments and configuration volumes are read."""

from __future__ import annotations

from epp.manifests.fields import Fields, Items, Shape, Text, harmless

CONTAINER = Fields(
    harmless(
        "env envFrom image imagePullPolicy lifecycle livenessProbe ports readinessProbe resizePolicy resources "
        "restartPolicy securityContext startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy "
        "tty volumeDevices workingDir"
    )
    | {
        "name": Text(),
        "args": Items(Text()),
        "command": Items(Text()),
        "volumeMounts": Items(
            Fields(
                harmless("mountPropagation readOnly recursiveReadOnly subPathExpr")
                | {"name": Text(), "mountPath": Text(), "subPath": Text()},
                ("name", "mountPath"),
            )
        ),
    }
)

VOLUME = Fields(
    harmless(
        "awsElasticBlockStore azureDisk azureFile cephfs cinder csi downwardAPI emptyDir ephemeral fc flexVolume "
        "flocker gcePersistentDisk gitRepo glusterfs hostPath image iscsi nfs persistentVolumeClaim "
        "photonPersistentDisk portworxVolume projected quobyte rbd scaleIO secret storageos vsphereVolume"
    )
    | {
        "name": Text(),
        "configMap": Fields(
            harmless("defaultMode optional")
            | {"name": Text(), "items": Items(Fields(harmless("mode") | {"key": Text(), "path": Text()}))}
        ),
    }
)

POD_FIELDS: dict[str, Shape] = harmless(
    "activeDeadlineSeconds affinity automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks "
    "ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname imagePullSecrets initContainers "
    "nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims "
    "resources restartPolicy runtimeClassName schedulerName schedulingGates securityContext serviceAccount "
    "serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations "
    "topologySpreadConstraints"
) | {"containers": Items(CONTAINER), "volumes": Items(VOLUME)}

POD = Fields(POD_FIELDS)
