{{/* The names and labels that all objects share. */}}

{{- define "tidepool.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tidepool.fullname" -}}
{{ .Values.fullnameOverride | default (printf "%s-%s" .Release.Name (include "tidepool.name" .)) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tidepool.labels" -}}
app.kubernetes.io/name: {{ include "tidepool.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
k8s-app: aws-node
{{- end }}

{{/* What the DaemonSet knows its pods by. It cannot change in the life of a DaemonSet. */}}
{{- define "tidepool.selector" -}}
{{- if .Values.originalMatchLabels -}}
k8s-app: aws-node
{{- else -}}
app.kubernetes.io/name: {{ include "tidepool.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tidepool.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "tidepool.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* Our image: `override`, or a repository and a tag. Takes a list of the chart and the values of an image. */}}
{{- define "tidepool.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- $tag := $image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- if $image.override }}
{{- $image.override }}
{{- else if $image.overrideRepository }}
{{- printf "%s:%s" $image.overrideRepository $tag }}
{{- else if regexMatch "^v1\\." $tag }}
{{- fail (printf "image tag %s is one of amazon-vpc-cni-k8s; leave it out, or set image.override or image.overrideRepository" $tag) }}
{{- else }}
{{- printf "%s:%s" $root.Values.image.repository $tag }}
{{- end }}
{{- end }}

{{- define "tidepool.initImage" -}}
{{- $own := .Values.init.image }}
{{- if or $own.override $own.overrideRepository $own.tag -}}
{{ include "tidepool.image" (list . $own) }}
{{- else -}}
{{ include "tidepool.image" (list . .Values.image) }}
{{- end }}
{{- end }}

{{- define "tidepool.nodeAgentImage" -}}
{{- with .Values.nodeAgent.image -}}
{{ .override | default (printf "%s:%s" (.overrideRepository | default (printf "%s.dkr.%s.%s.%s/amazon/aws-network-policy-agent" .account .endpoint .region .domain)) .tag) }}
{{- end }}
{{- end }}

{{/* Whether two daemons of a node run at once during an update. */}}
{{- define "tidepool.surges" -}}
{{- $surge := dig "rollingUpdate" "maxSurge" 0 .Values.updateStrategy | toString }}
{{- if not (has $surge (list "0" "0%" "")) }}true{{ end }}
{{- end }}
