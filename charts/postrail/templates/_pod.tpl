{{/* What all pods have: the restricted pod security standard, volumes, probes. */}}

{{- define "postrail.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "postrail.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "postrail.podAnnotations" -}}
{{- if .Values.monitoring.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: "9464"
prometheus.io/path: /metrics
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The parts of a pod's spec that do not depend on what it runs. */}}
{{- define "postrail.podCommon" -}}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext: {{- include "postrail.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "postrail.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Arguments: list root, component. */}}
{{- define "postrail.spread" -}}
{{- $root := index . 0 }}{{ $component := index . 1 -}}
{{- with $root.Values.topologySpread.keys }}
topologySpreadConstraints:
{{- range . }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{- include "postrail.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $component }}
{{- end }}
{{- end }}
{{- end }}

{{- define "postrail.environment" -}}
- name: HOSTNAME  # names this member of its consumer group; on the host network it would be the node's
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: TMPDIR, value: /tmp}
{{- if and (eq .Values.blobs.store "s3") .Values.blobs.s3.credentialsSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .Values.blobs.s3.credentialsSecret }}, key: access-key-id}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.blobs.s3.credentialsSecret }}, key: secret-access-key}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A folder of a Secret's entries, one file each. Arguments: list of volume, Secret, entries. */}}
{{- define "postrail.secretVolume" -}}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
    items:
{{- range index . 2 }}
      - {key: {{ . }}, path: {{ . }}}
{{- end }}
{{- end }}

{{- define "postrail.volumes" -}}
{{- $secrets := include "postrail.kafkaSecrets" . | fromYaml -}}
- name: config
  secret: {secretName: {{ include "postrail.fullname" . }}-config, defaultMode: 0440}
- {name: tmp, emptyDir: {}}
- {name: data, emptyDir: {}}
{{- with $secrets.ca }}
{{ include "postrail.secretVolume" (list "kafka-ca" .secret (list .key)) }}
{{- end }}
{{- with $secrets.client }}
{{ include "postrail.secretVolume" (list "kafka-client" .secret (list "tls.crt" "tls.key")) }}
{{- end }}
{{- with $secrets.sasl }}
{{ include "postrail.secretVolume" (list "kafka-password" .secret (list .key)) }}
{{- end }}
{{- if eq .Values.blobs.store "s3" }}
{{- with .Values.blobs.s3.caSecret }}
{{ include "postrail.secretVolume" (list "s3-ca" . (list "ca.crt")) }}
{{- end }}
{{- else if .Values.blobs.volume }}
- name: blobs
  {{- toYaml .Values.blobs.volume | nindent 2 }}
{{- else }}
- name: blobs
  persistentVolumeClaim:
    claimName: {{ .Values.blobs.claim.existing | default (printf "%s-blobs" (include "postrail.fullname" .)) }}
{{- end }}
{{- end }}

{{- define "postrail.mounts" -}}
{{- $secrets := include "postrail.kafkaSecrets" . | fromYaml -}}
- {name: config, mountPath: /etc/postrail/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /var/lib/postrail}
{{- range $name := list "ca" "client" "sasl" }}
{{- if hasKey $secrets $name }}
{{- $volume := ternary "kafka-password" (printf "kafka-%s" $name) (eq $name "sasl") }}
- {name: {{ $volume }}, mountPath: /etc/postrail/{{ $volume }}, readOnly: true}
{{- end }}
{{- end }}
{{- if ne .Values.blobs.store "s3" }}
- {name: blobs, mountPath: /var/lib/postrail/blobs}
{{- else if .Values.blobs.s3.caSecret }}
- {name: s3-ca, mountPath: /etc/postrail/s3-ca, readOnly: true}
{{- end }}
{{- end }}

{{/* Makes the topics ready before a service looks at them. Without brokers it waits here, not in Kubernetes' growing pauses. */}}
{{- define "postrail.topicsContainer" -}}
{{- if .Values.kafka.manageTopics }}
initContainers:
  - name: topics
    image: {{ include "postrail.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [topics, apply, --config, /etc/postrail/config/postrail.yaml, --wait-seconds, "3600"]
    securityContext: {{- include "postrail.containerSecurity" . | nindent 6 }}
    env: {{- include "postrail.environment" . | nindent 6 }}
    resources: {requests: {cpu: 50m, memory: 96Mi}, limits: {memory: 256Mi}}
    volumeMounts: {{- include "postrail.mounts" . | nindent 6 }}
{{- end }}
{{- end }}

{{/* Everything of a service's container but its ports, resources and own mounts. Arguments: list root, service. */}}
{{- define "postrail.serviceContainer" -}}
{{- $root := index . 0 }}{{ $service := index . 1 -}}
name: {{ $service }}
image: {{ include "postrail.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args: [{{ $service }}, --config, /etc/postrail/config/postrail.yaml]
securityContext: {{- include "postrail.containerSecurity" $root | nindent 2 }}
env: {{- include "postrail.environment" $root | nindent 2 }}
{{- include "postrail.probes" $root }}
{{- end }}

{{- define "postrail.probes" }}
startupProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}
