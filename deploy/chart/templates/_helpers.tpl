{{- /* The name of everything in a namespace, and of what is the cluster's. */ -}}
{{- define "kata-deploy.name" -}}
{{- .Chart.Name -}}{{- with .Values.env.multiInstallSuffix }}-{{ . }}{{ end -}}
{{- end -}}

{{- define "kata-deploy.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "kata-deploy.image" -}}
{{- $tag := .Values.image.tag -}}
{{- .Values.image.reference -}}
{{- if hasPrefix "sha256:" $tag -}}@{{ $tag }}
{{- else if hasPrefix "@" $tag -}}{{ $tag }}
{{- else if $tag -}}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- /* Architectures, as Kubernetes calls them and as the installer's variables do. */ -}}
{{- define "kata-deploy.arches" -}}
{{- dict "amd64" "X86_64" "arm64" "AARCH64" "ppc64le" "PPC64LE" "s390x" "S390X" | toJson -}}
{{- end -}}

{{- /* The shims that are enabled, with what the values say of each. */ -}}
{{- define "kata-deploy.enabled" -}}
{{- $enabled := dict -}}
{{- range $shim, $config := .Values.shims -}}
{{- if ne $shim "disableAll" -}}
{{- if kindIs "bool" $config.enabled | ternary $config.enabled (not $.Values.shims.disableAll) -}}
{{- $_ := set $enabled $shim $config -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $enabled | toJson -}}
{{- end -}}

{{- /* The names of those of `enabled` that are for `arch`. */ -}}
{{- define "kata-deploy.shimsFor" -}}
{{- $there := list -}}
{{- range $shim, $config := .enabled -}}
{{- if has $.arch $config.supportedArches -}}
{{- $there = append $there $shim -}}
{{- end -}}
{{- end -}}
{{- $there | toJson -}}
{{- end -}}

{{- /* The architectures that any shim is enabled for. */ -}}
{{- define "kata-deploy.archesWithShims" -}}
{{- $found := list -}}
{{- $enabled := include "kata-deploy.enabled" . | fromJson -}}
{{- range $arch, $_ := include "kata-deploy.arches" . | fromJson -}}
{{- if include "kata-deploy.shimsFor" (dict "enabled" $enabled "arch" $arch) | fromJsonArray -}}
{{- $found = append $found $arch -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- /* The default shim of `arch`: the one that is given, or the only one. */ -}}
{{- define "kata-deploy.defaultShim" -}}
{{- $there := include "kata-deploy.shimsFor" (dict "enabled" (include "kata-deploy.enabled" .root | fromJson) "arch" .arch) | fromJsonArray -}}
{{- index .root.Values.defaultShim .arch | default (eq (len $there) 1 | ternary ($there | first) "") -}}
{{- end -}}

{{- /* What a RuntimeClass and the container runtime call `shim`, or its `variant` if there is one. */ -}}
{{- define "kata-deploy.runtimeClassName" -}}
kata-{{ .shim }}{{ with .root.Values.env.multiInstallSuffix }}-{{ . }}{{ end }}{{ with .variant }}-{{ . }}{{ end }}
{{- end -}}
{{- define "kata-deploy.handler" -}}
{{ include "kata-deploy.runtimeClassName" . }}{{ with .root.Values.env.handlerDigest }}-{{ . }}{{ end }}
{{- end -}}

{{- /* The variants of each shim: itself, and what the installer adds to it. */ -}}
{{- define "kata-deploy.variants" -}}
{{- .Values.debug | ternary (list "" "debug") (list "") | toJson -}}
{{- end -}}

{{- /* The snapshotters that the installer is to set up, or nothing. */ -}}
{{- define "kata-deploy.setup" -}}
{{- if kindIs "map" .Values.snapshotter -}}
{{- with .Values.snapshotter.setup }}{{ if kindIs "slice" . }}{{ join "," . }}{{ end }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* Where the distribution's containerd has what the installer changes. */ -}}
{{- define "kata-deploy.configDir" -}}
{{- .Values.containerd.configDir | default (index (dict
  "k8s" "/etc/containerd"
  "k3s" "/var/lib/rancher/k3s/agent/etc/containerd"
  "rke2" "/var/lib/rancher/rke2/agent/etc/containerd"
  "k0s" "/etc/k0s"
  "microk8s" "/var/snap/microk8s/current/args"
) .Values.k8sDistribution) -}}
{{- end -}}

{{- define "kata-deploy.runtimeSocket" -}}
{{- if eq .Values.containerRuntime "crio" -}}
/run/crio/crio.sock
{{- else -}}
{{- .Values.containerd.runtimeSocket | default (index (dict
  "k8s" "/run/containerd/containerd.sock"
  "k3s" "/run/k3s/containerd/containerd.sock"
  "rke2" "/run/k3s/containerd/containerd.sock"
  "k0s" "/run/k0s/containerd.sock"
  "microk8s" "/var/snap/microk8s/common/run/containerd.sock"
) .Values.k8sDistribution) -}}
{{- end -}}
{{- end -}}

{{- /* The directory of this installation on the node. */ -}}
{{- define "kata-deploy.installation" -}}
{{- .Values.env.installationPrefix | trimSuffix "/" -}}/opt/kata{{ with .Values.env.multiInstallSuffix }}-{{ . }}{{ end }}
{{- end -}}

{{- /*
The affinity that was given, and beside it that a node's architecture is one with
shims. What a node must have is a list of terms of which any may hold, so each of
them gets it.
*/ -}}
{{- define "kata-deploy.affinity" -}}
{{- $arch := dict "key" "kubernetes.io/arch" "operator" "In" "values" (include "kata-deploy.archesWithShims" . | fromJsonArray) -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- $node := $affinity.nodeAffinity | default dict -}}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
{{- $terms := list -}}
{{- range $required.nodeSelectorTerms | default (list dict) -}}
{{- $terms = append $terms (set . "matchExpressions" (append (.matchExpressions | default list) $arch)) -}}
{{- end -}}
{{- $_ := set $required "nodeSelectorTerms" $terms -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- toYaml $affinity -}}
{{- end -}}

{{- /* What the installer is told, as a list of variables. */ -}}
{{- define "kata-deploy.env" -}}
{{- $enabled := include "kata-deploy.enabled" . | fromJson -}}
{{- $variables := dict
  "DAEMONSET_NAME" (include "kata-deploy.name" .)
  "DEBUG" (toString .Values.debug)
  "HEALTH_PORT" "8090"
  "K8S_DISTRIBUTION" .Values.k8sDistribution
  "INSTALLATION_PREFIX" .Values.env.installationPrefix
  "MULTI_INSTALL_SUFFIX" .Values.env.multiInstallSuffix
  "HANDLER_DIGEST" .Values.env.handlerDigest
  "CONTAINERD_CONFIG_FILE_NAME" .Values.containerd.configFileName
  "STARTUP_TAINTS" (join "," .Values.startupTaints)
  "EXPERIMENTAL_SETUP_SNAPSHOTTER" (include "kata-deploy.setup" .)
-}}
{{- range $arch, $name := include "kata-deploy.arches" . | fromJson -}}
{{- $shims := include "kata-deploy.shimsFor" (dict "enabled" $enabled "arch" $arch) | fromJsonArray -}}
{{- $annotations := list -}}
{{- $snapshotters := list -}}
{{- $pulls := list -}}
{{- $forced := list -}}
{{- range $shim := $shims -}}
{{- $config := index $enabled $shim -}}
{{- with $config.allowedHypervisorAnnotations }}{{ $annotations = append $annotations (printf "%s:%s" $shim (join "," .)) }}{{ end -}}
{{- with ($config.containerd | default dict).snapshotter }}{{ $snapshotters = append $snapshotters (printf "%s:%s" $shim .) }}{{ end -}}
{{- if ($config.containerd | default dict).forceGuestPull }}{{ $forced = append $forced $shim }}{{ end -}}
{{- if ($config.crio | default dict).guestPull }}{{ $pulls = append $pulls (printf "%s:guest-pull" $shim) }}{{ end -}}
{{- end -}}
{{- $_ := set $variables (printf "SHIMS_%s" $name) (join " " $shims) -}}
{{- $_ := set $variables (printf "DEFAULT_SHIM_%s" $name) (include "kata-deploy.defaultShim" (dict "root" $ "arch" $arch)) -}}
{{- $_ := set $variables (printf "ALLOWED_HYPERVISOR_ANNOTATIONS_%s" $name) (join " " $annotations) -}}
{{- if eq $.Values.containerRuntime "crio" -}}
{{- $_ := set $variables (printf "PULL_TYPE_MAPPING_%s" $name) (join "," $pulls) -}}
{{- else -}}
{{- $_ := set $variables (printf "SNAPSHOTTER_HANDLER_MAPPING_%s" $name) (join "," $snapshotters) -}}
{{- $_ := set $variables (printf "EXPERIMENTAL_FORCE_GUEST_PULL_%s" $name) (join "," $forced) -}}
{{- end -}}
{{- end -}}
{{- range $variable, $field := dict "AGENT_HTTPS_PROXY" "httpsProxy" "AGENT_NO_PROXY" "noProxy" -}}
{{- $settings := list -}}
{{- range $shim, $config := $enabled -}}
{{- with index ($config.agent | default dict) $field }}{{ $settings = append $settings (printf "%s=%s" $shim .) }}{{ end -}}
{{- end -}}
{{- $_ := set $variables $variable (join ";" $settings) -}}
{{- end -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- range $name, $value := $variables }}
{{- if $value }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Where pods of the payload's image can run, and how they come to it. */ -}}
{{- define "kata-deploy.placement" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  {{- include "kata-deploy.affinity" . | nindent 2 }}
{{- if or .Values.tolerations .Values.startupTaints }}
tolerations:
  {{- range .Values.startupTaints }}
  {{- $taint := splitList ":" . }}
  - key: {{ $taint | first | quote }}
    operator: Exists
    {{- with rest $taint }}
    effect: {{ first . }}
    {{- end }}
  {{- end }}
  {{- with .Values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Annotations of what is there while Helm uninstalls, before it deletes anything. */ -}}
{{- define "kata-deploy.beforeDelete" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
