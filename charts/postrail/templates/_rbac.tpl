{{/* Rights on what the operator makes. Arguments: list root, "release" or "senders". Creating cannot be limited by name. */}}
{{- define "postrail.workloadRules" -}}
{{- $root := index . 0 }}{{ $release := eq (index . 1) "release" -}}
{{- $name := include "postrail.fullname" $root -}}
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [secrets]
  verbs: [patch, delete]
  {{- if $release }}
  resourceNames: [{{ $name }}-config, {{ $name }}-keys]
  {{- else }}
  resourceNames: {{ include "postrail.sendersSecrets" $root | fromYamlArray | toJson }}
  {{- end }}
{{- end }}

{{/* The Secrets that senders mount, which the operator copies to their namespace. */}}
{{- define "postrail.sendersSecrets" -}}
{{- $secrets := include "postrail.kafkaSecrets" . | fromYaml -}}
- {{ include "postrail.fullname" . }}-config
{{- range list "ca" "client" "sasl" }}
{{- if hasKey $secrets . }}
- {{ (index $secrets .).secret }}
{{- end }}
{{- end }}
{{- if eq .Values.blobs.store "s3" }}
{{- range compact (list .Values.blobs.s3.credentialsSecret .Values.blobs.s3.caSecret) }}
- {{ . }}
{{- end }}
{{- end }}
{{- end }}
