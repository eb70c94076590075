{{/* Who may connect to what through the egress proxies, in Dante's words. The first rule that fits counts; what none fits is refused. */}}

{{- define "postrail.egressImage" -}}
{{- .Values.egress.image | default (printf "%s-egress:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion)) }}
{{- end }}

{{- define "postrail.egressRules" -}}
clientmethod: none
socksmethod: none
{{- range .Values.egress.clients }}
client pass {
  from: {{ . }} to: {{ include "postrail.everywhere" . }}
  log: error
}
{{- end }}
{{- range $blocked := .Values.egress.blocked }}
{{- range $.Values.egress.clients }}
socks block {
  from: {{ . }} to: {{ $blocked }}
  log: connect
}
{{- end }}
{{- end }}
{{- $root := . }}
{{- range $port := concat (list .Values.routing.mxPort) .Values.networkPolicies.receiverPorts | uniq }}
{{- range $client := $root.Values.egress.clients }}
{{- range $to := list "0.0.0.0/0" "::/0" }}
socks pass {
  from: {{ $client }} to: {{ $to }} port = {{ $port }}
  command: connect
  log: error
}
{{- end }}
{{- end }}
{{- end }}
{{ end }}

{{- define "postrail.everywhere" -}}
{{- contains ":" . | ternary "::/0" "0.0.0.0/0" }}
{{- end }}
