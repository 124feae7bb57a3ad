{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "sluice.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- /* What the Pod Security Standard "restricted" asks of a pod and of a container. */ -}}
{{- define "sluice.podSecurity" -}}
{runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
{{- end }}
{{- define "sluice.containerSecurity" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
{{- end }}
{{- /* Replicas stand on different nodes and zones where there are some; they run all the same where there are none. */ -}}
{{- define "sluice.spread" -}}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      app.kubernetes.io/instance: {{ $.release }}
      app.kubernetes.io/component: {{ $.component }}
{{- end }}
{{- end }}

{{/* sluice.rules is not empty where rules are served. */}}
{{- define "sluice.rules" -}}
{{- if or .Values.prometheus.url .Values.prometheus.sources -}}yes{{- end -}}
{{- end -}}

{{/* sluice.prometheusSecrets are the Secrets that sources read, as JSON. */}}
{{- define "sluice.prometheusSecrets" -}}
{{- $all := .Values.prometheus.secrets -}}
{{- if .Values.prometheus.bearerTokenSecret }}{{ $all = append $all .Values.prometheus.bearerTokenSecret }}{{ end -}}
{{- $all | uniq | toJson -}}
{{- end -}}
