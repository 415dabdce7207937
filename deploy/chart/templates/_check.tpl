{{- /*
kata-deploy.check ends the rendering if the values ask for what this chart does not
do, or contradict each other. It says all that is wrong, each by the value's name.
*/ -}}
{{- define "kata-deploy.check" -}}
{{- $errors := list -}}

{{- /* Values of upstream's chart, and what each may be: all that this chart does of it. */ -}}
{{- $only := dict
  "containerd.userDropIn" (list "")
  "customRuntimes.enabled" (list false)
  "customRuntimes.runtimes" (list (dict))
  "deploymentMode" (list "daemonset")
  "devkit" (list false)
  "env.hostOS" (list "")
  "job" (list (dict))
  "logLevel" (list "" "info")
  "monitor.enabled" (list false)
  "node-feature-discovery.enabled" (list false)
  "nodeFeatureRules.create" (list "auto" false)
  "snapshotter.erofsDmverity" (list "" false)
  "snapshotter.erofsMergeMode" (list "")
  "snapshotter.erofsSnapshotterMode" (list "")
  "snapshotter.setup" (list (list) (list "nydus"))
  "verification.daemonsetTimeout" (list 1200)
  "verification.pod" (list "")
  "verification.timeout" (list 180)
-}}
{{- /* Of a group, nothing else may be there. */ -}}
{{- range $group := list "customRuntimes" "monitor" "node-feature-discovery" "nodeFeatureRules" "snapshotter" "verification" -}}
{{- $value := index $.Values $group -}}
{{- if kindIs "map" $value -}}
{{- range $key, $_ := $value -}}
{{- if not (hasKey $only (printf "%s.%s" $group $key)) -}}
{{- $errors = append $errors (printf "%s.%s is not supported" $group $key) -}}
{{- end -}}
{{- end -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $errors = append $errors (printf "%s=%s is not supported" $group (toJson $value)) -}}
{{- end -}}
{{- end -}}
{{- range $path, $accepted := $only -}}
{{- $value := $.Values.AsMap -}}
{{- range $key := splitList "." $path -}}
{{- $value = ternary (index (kindIs "map" $value | ternary $value dict) $key) nil (kindIs "map" $value) -}}
{{- end -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $allowed := list -}}
{{- range $accepted }}{{ $allowed = append $allowed (toJson .) }}{{ end -}}
{{- if not (has (toJson $value) $allowed) -}}
{{- $errors = append $errors (printf "%s=%s is not supported: leave it out, or give %s" $path (toJson $value) (join " or " $allowed)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if not .Values.image.reference -}}
{{- $errors = append $errors "image.reference is not set: it is the repository of a payload; `bazel build //deploy/chart:tdx` makes values with that of tdx" -}}
{{- else if contains "@" .Values.image.reference -}}
{{- if .Values.image.tag -}}
{{- $errors = append $errors (printf "image.tag=%s: image.reference has a digest already" .Values.image.tag) -}}
{{- else if not (regexMatch "^[^@]+@sha256:[0-9a-f]{64}$" .Values.image.reference) -}}
{{- $errors = append $errors (printf "image.reference=%s: behind @ there must be sha256: and 64 hex digits" .Values.image.reference) -}}
{{- end -}}
{{- else if not (regexMatch "^(@?sha256:[0-9a-f]{64}|[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})$" .Values.image.tag) -}}
{{- $errors = append $errors (printf "image.tag=%q must be the payload's digest, @sha256: and 64 hex digits, or a tag" .Values.image.tag) -}}
{{- end -}}

{{- if and (include "kata-deploy.setup" .) (eq .Values.containerRuntime "crio") -}}
{{- $errors = append $errors (printf "snapshotter.setup=%s: CRI-O knows no snapshotters, leave it out" (toJson .Values.snapshotter.setup)) -}}
{{- end -}}

{{- $enabled := include "kata-deploy.enabled" . | fromJson -}}
{{- if not $enabled -}}
{{- $errors = append $errors "no shim is enabled: set shims.<shim>.enabled" -}}
{{- end -}}
{{- range $shim, $_ := $enabled -}}
{{- range $variant := include "kata-deploy.variants" $ | fromJsonArray -}}
{{- $handler := include "kata-deploy.handler" (dict "root" $ "shim" $shim "variant" $variant) -}}
{{- if gt (len $handler) 63 -}}
{{- $errors = append $errors (printf "the handler %s has %d characters, Kubernetes takes 63: choose a shorter env.multiInstallSuffix or env.handlerDigest" $handler (len $handler)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $defaults := dict -}}
{{- range $arch, $_ := include "kata-deploy.arches" . | fromJson -}}
{{- $there := include "kata-deploy.shimsFor" (dict "enabled" $enabled "arch" $arch) | fromJsonArray -}}
{{- $given := index $.Values.defaultShim $arch -}}
{{- if $given -}}
{{- if not (has $given $there) -}}
{{- $errors = append $errors (printf "defaultShim.%s=%s is not enabled for %s; enabled are: %s" $arch $given $arch ($there | join ", " | default "none")) -}}
{{- end -}}
{{- else if and $.Values.runtimeClasses.createDefault (gt (len $there) 1) -}}
{{- $errors = append $errors (printf "defaultShim.%s is not set, but runtimeClasses.createDefault is, and several are enabled: %s" $arch (join ", " $there)) -}}
{{- end -}}
{{- $default := $given | default (eq (len $there) 1 | ternary ($there | first) "") -}}
{{- if $default -}}{{- $_ := set $defaults $default $arch -}}{{- end -}}
{{- end -}}
{{- if and .Values.runtimeClasses.createDefault (gt (len $defaults) 1) -}}
{{- $errors = append $errors (printf "runtimeClasses.createDefault: a RuntimeClass has one handler, but the default shim is not the same for all architectures: %s" (keys $defaults | sortAlpha | join ", ")) -}}
{{- end -}}

{{- if $errors -}}
{{- fail (printf "\n%s" (join "\n" $errors)) -}}
{{- end -}}
{{- end -}}
