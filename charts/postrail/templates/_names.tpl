{{/* Names, labels, and where things lie in pods. */}}

{{- define "postrail.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "postrail" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-postrail" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "postrail.selector" -}}
app.kubernetes.io/name: postrail
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "postrail.labels" -}}
{{ include "postrail.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: postrail
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "postrail.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "postrail.tlsSecret" -}}
{{- .Values.ingress.tls.secret | default (printf "%s-tls" (include "postrail.fullname" .)) }}
{{- end }}

{{- define "postrail.sendersNamespace" -}}
{{- ternary .Values.senders.hostNetwork.namespace .Release.Namespace (or .Values.senders.hostNetwork.enabled .Values.egress.enabled) }}
{{- end }}

{{/* Whether an object of an API is made: "auto" where the cluster has it. Argument: list root, value, API. */}}
{{- define "postrail.wanted" -}}
{{- $root := index . 0 }}{{ $value := index . 1 }}{{ $api := index . 2 -}}
{{- if eq (toString $value) "true" }}yes{{ else if and (eq (toString $value) "auto") ($root.Capabilities.APIVersions.Has $api) }}yes{{ end }}
{{- end }}

{{- define "postrail.kafkaMode" -}}
{{- if .Values.kafka.evaluation.enabled }}evaluation{{ else if .Values.kafka.strimzi.enabled }}strimzi{{ else }}existing{{ end }}
{{- end }}

{{- define "postrail.kafkaServers" -}}
{{- $name := include "postrail.fullname" . -}}
{{- $mode := include "postrail.kafkaMode" . -}}
{{- if eq $mode "evaluation" }}{{ list (printf "%s-kafka.%s.svc:9092" $name .Release.Namespace) | toJson }}
{{- else if eq $mode "strimzi" }}{{ list (printf "%s-kafka-bootstrap.%s.svc:9093" $name .Release.Namespace) | toJson }}
{{- else }}{{ .Values.kafka.bootstrapServers | toJson }}{{ end }}
{{- end }}

{{/* Secrets of the connection to Kafka, the same facts for each way to have one: authority, client, password. */}}
{{- define "postrail.kafkaSecrets" -}}
{{- $name := include "postrail.fullname" . -}}
{{- $kafka := .Values.kafka -}}
{{- if eq (include "postrail.kafkaMode" .) "strimzi" }}
tls: true
ca: {secret: {{ $name }}-cluster-ca-cert, key: ca.crt}
sasl: {mechanism: SCRAM-SHA-512, username: {{ $name }}, secret: {{ $name }}, key: password}
{{- else if eq (include "postrail.kafkaMode" .) "existing" }}
tls: {{ $kafka.tls.enabled }}
{{- if $kafka.tls.caSecret }}
ca: {secret: {{ $kafka.tls.caSecret }}, key: {{ $kafka.tls.caKey }}}
{{- end }}
{{- if $kafka.tls.clientSecret }}
client: {secret: {{ $kafka.tls.clientSecret }}}
{{- end }}
{{- if $kafka.sasl.enabled }}
sasl: {mechanism: {{ $kafka.sasl.mechanism }}, username: {{ $kafka.sasl.username | quote }}, secret: {{ $kafka.sasl.secret }}, key: {{ $kafka.sasl.passwordKey }}}
{{- end }}
{{- else }}
tls: false
{{- end }}
{{- end }}
