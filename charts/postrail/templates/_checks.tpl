{{/* Values that the schema cannot judge, because they depend on each other. Each message says what to do. */}}

{{- define "postrail.checks" -}}
{{- $problems := list -}}
{{- $v := .Values -}}
{{- if not $v.hostname }}{{ $problems = append $problems "hostname is empty: set it to the name that the system gives in its greeting, such as mail.example.com" }}{{ end -}}
{{- $kafkas := 0 -}}
{{- range list (not (empty $v.kafka.bootstrapServers)) $v.kafka.evaluation.enabled $v.kafka.strimzi.enabled }}{{ if . }}{{ $kafkas = add1 $kafkas }}{{ end }}{{ end -}}
{{- if eq ($kafkas | int) 0 }}{{ $problems = append $problems "kafka: nothing says where Kafka is: set kafka.bootstrapServers, or kafka.strimzi.enabled=true, or kafka.evaluation.enabled=true to try the system" }}{{ end -}}
{{- if gt ($kafkas | int) 1 }}{{ $problems = append $problems "kafka: set one of kafka.bootstrapServers, kafka.strimzi.enabled and kafka.evaluation.enabled, not several" }}{{ end -}}
{{- if and (eq (include "postrail.kafkaMode" .) "existing") $v.kafka.sasl.enabled (or (not $v.kafka.sasl.username) (not $v.kafka.sasl.secret)) }}{{ $problems = append $problems "kafka.sasl is enabled: set kafka.sasl.username and kafka.sasl.secret (the Secret with the password)" }}{{ end -}}
{{- if and (not $v.kafka.tls.enabled) (or $v.kafka.tls.caSecret $v.kafka.tls.clientSecret) }}{{ $problems = append $problems "kafka.tls names Secrets, but is not enabled: set kafka.tls.enabled=true, or remove them" }}{{ end -}}
{{- if gt ($v.kafka.minInsyncReplicas | int) ($v.kafka.replicationFactor | int) }}{{ $problems = append $problems "kafka.minInsyncReplicas is more than kafka.replicationFactor: nothing could ever be stored" }}{{ end -}}
{{- if eq $v.blobs.store "s3" -}}
{{- if not $v.blobs.s3.bucket }}{{ $problems = append $problems "blobs.store is s3: set blobs.s3.bucket" }}{{ end -}}
{{- if and (hasPrefix "http://" $v.blobs.s3.endpoint) (not $v.blobs.s3.allowHttp) }}{{ $problems = append $problems "blobs.s3.endpoint is without TLS: use https://, or set blobs.s3.allowHttp=true for a test" }}{{ end -}}
{{- else if not (or $v.blobs.claim.create $v.blobs.claim.existing $v.blobs.volume) }}{{ $problems = append $problems "blobs: large bodies must lie where all pods can read them: set blobs.store=s3 and blobs.s3.bucket, or one of blobs.claim.create=true, blobs.claim.existing and blobs.volume" }}{{ end -}}
{{- range $index, $listener := $v.ingress.listeners -}}
{{- if eq .kind "trusted" -}}
{{- if or (not .networks) (not .submitter) }}{{ $problems = append $problems (printf "ingress.listeners[%d] is trusted: set networks (who may submit) and submitter (as whom)" $index) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $certificates := 0 -}}
{{- range list (not (empty $v.ingress.tls.secret)) $v.ingress.tls.selfSigned $v.ingress.tls.certManager.enabled }}{{ if . }}{{ $certificates = add1 $certificates }}{{ end }}{{ end -}}
{{- if and (include "postrail.encrypted" .) (ne ($certificates | int) 1) }}{{ $problems = append $problems "ingress.tls: listeners need one certificate: set one of ingress.tls.secret, ingress.tls.certManager.enabled and ingress.tls.selfSigned (to try the system)" }}{{ end -}}
{{- if and $v.ingress.tls.certManager.enabled (not $v.ingress.tls.certManager.issuerRef.name) }}{{ $problems = append $problems "ingress.tls.certManager.issuerRef.name is empty: name the Issuer or ClusterIssuer that signs" }}{{ end -}}
{{- if not (has "default" $v.routing.groups) }}{{ $problems = append $problems "routing.groups must contain default" }}{{ end -}}
{{- $outside := or $v.senders.hostNetwork.enabled $v.egress.enabled -}}
{{- if and $outside (or (not $v.senders.hostNetwork.namespace) (eq $v.senders.hostNetwork.namespace .Release.Namespace)) }}{{ $problems = append $problems "senders.hostNetwork.namespace: pods on the host network need a namespace of their own, because they are outside the restricted pod security standard: name one that is not the release's" }}{{ end -}}
{{- if and $v.senders.hostNetwork.enabled (ne $v.blobs.store "s3") (not $v.blobs.volume) }}{{ $problems = append $problems "senders.hostNetwork: senders in another namespace cannot mount a claim of this one: set blobs.store=s3, or blobs.volume (such as nfs)" }}{{ end -}}
{{- if and $v.egress.enabled (or (not $v.egress.nodeSelector) (not $v.egress.addresses) (not $v.egress.clients)) }}{{ $problems = append $problems "egress is enabled: set egress.nodeSelector (the nodes that have addresses), egress.addresses (each with a port of its own) and egress.clients (the networks of the pods, such as 10.244.0.0/16): a proxy that anybody may use sends anybody's mail" }}{{ end -}}
{{- range list "port" "address" }}{{ $field := . }}{{ $seen := list }}
{{- range $v.egress.addresses }}{{ $value := get . $field | toString }}
{{- if has $value $seen }}{{ $problems = append $problems (printf "egress.addresses: the %s %s stands twice; each address has a port of its own" $field $value) }}{{ end }}{{ $seen = append $seen $value -}}
{{ end }}{{ end -}}
{{- if le ($v.terminationGracePeriodSeconds | int) (add ($v.senders.drainSeconds | int) ($v.ingress.preStopSeconds | int) 30 | int) }}{{ $problems = append $problems (printf "terminationGracePeriodSeconds is %d: it must exceed senders.drainSeconds + ingress.preStopSeconds + 30 (%d), or pods are killed before they have drained" ($v.terminationGracePeriodSeconds | int) (add ($v.senders.drainSeconds | int) ($v.ingress.preStopSeconds | int) 30 | int)) }}{{ end -}}
{{- range list "pools" "submitters" }}{{ if hasKey $v.config . }}{{ $problems = append $problems (printf "config.%s: the operator writes %s from their objects; remove it" . .) }}{{ end }}{{ end -}}
{{- with $problems }}{{ fail (printf "\n\nThese values cannot be used:\n  - %s\n" (join "\n  - " .)) }}{{ end -}}
{{- end }}
