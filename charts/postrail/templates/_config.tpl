{{/* The base configuration: what the chart knows. The operator adds pools, submitters, domains and destinations from their objects. */}}

{{- define "postrail.baseConfig" -}}
{{- $values := .Values -}}
{{- $evaluation := eq (include "postrail.kafkaMode" .) "evaluation" -}}
{{- $secrets := include "postrail.kafkaSecrets" . | fromYaml -}}
{{- $kafka := dict
      "bootstrap_servers" (include "postrail.kafkaServers" . | fromJsonArray)
      "topic_prefix" $values.kafka.topicPrefix
      "partitions" ($values.kafka.partitions | int)
      "replication_factor" (ternary 1 ($values.kafka.replicationFactor | int) $evaluation)
      "min_insync_replicas" (ternary 1 ($values.kafka.minInsyncReplicas | int) $evaluation) -}}
{{- if $secrets.tls }}
{{- $tls := dict "enabled" true -}}
{{- if $secrets.ca }}{{ $_ := set $tls "ca_file" (printf "/etc/postrail/kafka-ca/%s" $secrets.ca.key) }}{{ end -}}
{{- if $secrets.client }}
{{- $_ := set $tls "certificate_file" "/etc/postrail/kafka-client/tls.crt" -}}
{{- $_ := set $tls "key_file" "/etc/postrail/kafka-client/tls.key" -}}
{{- end -}}
{{- $_ := set $kafka "tls" $tls -}}
{{- end -}}
{{- with $secrets.sasl -}}
{{- $_ := set $kafka "sasl" (dict "mechanism" .mechanism "username" .username "password_file" (printf "/etc/postrail/kafka-password/%s" .key)) -}}
{{- end -}}
{{- $blobs := dict "store" $values.blobs.store -}}
{{- if eq $values.blobs.store "s3" -}}
{{- $s3 := dict "bucket" $values.blobs.s3.bucket "prefix" $values.blobs.s3.prefix "region" $values.blobs.s3.region "endpoint" $values.blobs.s3.endpoint "allow_http" $values.blobs.s3.allowHttp -}}
{{- if $values.blobs.s3.caSecret }}{{ $_ := set $s3 "ca_file" "/etc/postrail/s3-ca/ca.crt" }}{{ end -}}
{{- $_ := set $blobs "s3" $s3 -}}
{{- end -}}
{{- $listeners := list -}}
{{- range $values.ingress.listeners -}}
{{- $listener := dict "kind" .kind "port" (.port | int) -}}
{{- if eq .kind "trusted" }}{{ $_ := set $listener "networks" .networks }}{{ $_ := set $listener "submitter" .submitter }}{{ end -}}
{{- $listeners = append $listeners $listener -}}
{{- end -}}
{{- $ingress := dict "listeners" $listeners -}}
{{- if include "postrail.encrypted" . -}}
{{- $_ := set $ingress "tls" (dict "certificate_file" "/etc/postrail/tls/tls.crt" "key_file" "/etc/postrail/tls/tls.key") -}}
{{- end -}}
{{- $base := dict
      "hostname" $values.hostname
      "data_directory" "/var/lib/postrail"
      "log" (dict "kind" "kafka" "kafka" $kafka)
      "blobs" $blobs
      "ingress" $ingress
      "signing" (dict "require" $values.signing.require)
      "routing" (dict "groups" $values.routing.groups "mx_port" ($values.routing.mxPort | int))
      "delivery" (dict "drain_seconds" ($values.senders.drainSeconds | int))
      "health" (dict "address" "0.0.0.0" "port" 9464) -}}
{{- mergeOverwrite $base (deepCopy $values.config) | toYaml -}}
{{- end }}

{{- define "postrail.encrypted" -}}
{{- range .Values.ingress.listeners }}{{ if ne .kind "trusted" }}yes{{ end }}{{ end }}
{{- end }}
