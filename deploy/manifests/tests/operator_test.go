//go:build bazel

package tests

import (
	"bytes"
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-build/kiln/deploy/command"
	"github.com/kiln-build/kiln/deploy/kubernetes"
	"github.com/kiln-build/kiln/payload/receipt"
)

// ccRuntime is what the operator takes, as far as is written down of its API
// v1beta1.
type ccRuntime struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		CcNodeSelector *metav1.LabelSelector `json:"ccNodeSelector"`
		CcTolerations  []corev1.Toleration   `json:"ccTolerations"`
		RuntimeName    string                `json:"runtimeName"`
		Config         struct {
			InstallType             string                       `json:"installType"`
			PayloadImage            string                       `json:"payloadImage"`
			ImagePullSecret         *corev1.LocalObjectReference `json:"imagePullSecret"`
			ImagePullPolicy         corev1.PullPolicy            `json:"imagePullPolicy"`
			InstallerVolumeMounts   []corev1.VolumeMount         `json:"installerVolumeMounts"`
			InstallerVolumes        []corev1.Volume              `json:"installerVolumes"`
			InstallCmd              []string                     `json:"installCmd"`
			UninstallCmd            []string                     `json:"uninstallCmd"`
			CleanupCmd              []string                     `json:"cleanupCmd"`
			RuntimeClasses          []operatorClass              `json:"runtimeClasses"`
			DefaultRuntimeClassName string                       `json:"defaultRuntimeClassName"`
			Debug                   bool                         `json:"debug"`
			EnvironmentVariables    []corev1.EnvVar              `json:"environmentVariables"`
			InstallDoneLabel        map[string]string            `json:"installDoneLabel"`
			UninstallDoneLabel      map[string]string            `json:"uninstallDoneLabel"`
		} `json:"config"`
	} `json:"spec"`
}

type operatorClass struct {
	Name        string `json:"name"`
	Snapshotter string `json:"snapshotter"`
	PullType    string `json:"pulltype"`
}

func readCcRuntime(t *testing.T, file string) (content []byte, cc ccRuntime) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(content, &cc))
	return content, cc
}

func TestCcRuntime(t *testing.T) {
	classes, receipts := tables(t, "KILN_RUNTIME_CLASSES"), given(t, "KILN_RECEIPTS")
	for platform, file := range given(t, "KILN_OPERATOR") {
		t.Run(platform, func(t *testing.T) {
			content, cc := readCcRuntime(t, file)
			require.Equal(t, metav1.TypeMeta{Kind: "CcRuntime", APIVersion: "confidentialcontainers.org/v1beta1"}, cc.TypeMeta)
			require.Empty(t, cc.Namespace, "it is the cluster's")
			require.Equal(t, "kata", cc.Spec.RuntimeName)
			config := cc.Spec.Config
			require.Equal(t, "bundle", config.InstallType)

			r, err := receipt.ReadFile(receipts[platform])
			require.NoError(t, err)
			registry := r.Registry
			if registry == receipt.Embedded {
				registry = "REGISTRY"
				require.Contains(t, string(content), "put the one where it is served\n# in REGISTRY's place")
			}
			require.Equal(t, registry+"/"+r.Repository+"@"+r.Digest, config.PayloadImage)

			var names []string
			for _, c := range config.RuntimeClasses {
				names = append(names, c.Name)
			}
			require.ElementsMatch(t, slices.Collect(maps.Keys(classes[platform])), names)

			// What the chart gives the installer, the operator gives it as well.
			shims := strings.Split(strings.ReplaceAll(strings.Join(names, " "), "kata-", ""), " ")
			pod := rendering(t, only(shims...))
			require.ElementsMatch(t, pod.daemonSet.Spec.Template.Spec.Volumes, config.InstallerVolumes)
			require.ElementsMatch(t, pod.container().VolumeMounts, config.InstallerVolumeMounts)
			variables := map[string]string{}
			for _, v := range config.EnvironmentVariables {
				variables[v.Name] = v.Value
			}
			require.Contains(t, variables, "NODE_NAME")
			for _, m := range r.Manifests {
				name := "SHIMS_" + map[string]string{"amd64": "X86_64", "arm64": "AARCH64", "ppc64le": "PPC64LE", "s390x": "S390X"}[m.Arch]
				require.Equal(t, pod.env()[name], variables[name])
			}
		})
	}
}

func TestTheVerbsOfTheOperator(t *testing.T) {
	for platform, file := range given(t, "KILN_OPERATOR") {
		_, cc := readCcRuntime(t, file)
		config := cc.Spec.Config
		seen := map[string]bool{}
		for _, verb := range [][]string{config.InstallCmd, config.UninstallCmd, config.CleanupCmd} {
			require.GreaterOrEqual(t, len(verb), 2)
			require.Equal(t, "/usr/bin/kata-deploy", verb[0], "the payload's entry point")
			require.False(t, seen[verb[1]], "%s: %s is there twice", platform, verb[1])
			seen[verb[1]] = true
			var out, errs bytes.Buffer
			code := command.Run(context.Background(), append(slices.Clone(verb[1:]), "--help"), func(string) string { return "" }, &out, &errs)
			require.Equal(t, 0, code, errs.String())
			require.Contains(t, out.String(), "kata-deploy "+verb[1]+" [flags]")
		}
		// The operator waits for the labels that it is told, and these are what the verbs set.
		require.Equal(t, map[string]string{kubernetes.SharedLabel: kubernetes.Ready}, config.InstallDoneLabel)
		require.Len(t, config.UninstallDoneLabel, 1)
		require.Equal(t, []string{"--done-label=" + config.UninstallDoneLabel[kubernetes.SharedLabel]}, config.UninstallCmd[2:])
	}
}
