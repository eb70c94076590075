{{/* A sender's Deployment but for its name, namespace, replicas, selector, pool and group, which the operator adds. */}}
{{- define "postrail.senderTemplate" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  labels: {{- include "postrail.labels" . | nindent 4 }}
    app.kubernetes.io/component: sender
spec:
  revisionHistoryLimit: 5
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  template:
    metadata:
      labels: {{- include "postrail.labels" . | nindent 8 }}
        app.kubernetes.io/component: sender
        {{- with .Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations: {{- include "postrail.podAnnotations" . | nindent 8 }}
    spec:
      serviceAccountName: {{ include "postrail.fullname" . }}
      automountServiceAccountToken: false
      {{- include "postrail.podCommon" . | nindent 6 }}
      {{- with .Values.senders.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.senders.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- include "postrail.spread" (list . "sender") | nindent 6 }}
      {{- include "postrail.topicsContainer" . | nindent 6 }}
      containers:
        - {{- include "postrail.serviceContainer" (list . "sender") | nindent 10 }}
          ports:
            - {name: health, containerPort: 9464}
          resources: {{- toYaml .Values.senders.resources | nindent 12 }}
          volumeMounts: {{- include "postrail.mounts" . | nindent 12 }}
      volumes: {{- include "postrail.volumes" . | nindent 8 }}
{{- end }}
