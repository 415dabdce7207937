//go:build payload

// Package hardware_test runs pods on a cluster that has the hardware, a TEE or at
// least KVM, and the payload. Bazel skips it where the platform does not say so.
package hardware_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
	"github.com/kiln-build/kiln/payload/receipt"
)

// deadline is for pulling the image and starting a confidential guest.
const deadline = 10 * time.Minute

// insideOf is a command for the pod that ends with 0 inside of a guest of a TEE: it
// asks for a misc device of the guest's kernel.
func insideOf(t *testing.T, tee string) string {
	t.Helper()
	if tee == "" {
		return "true"
	}
	device, ok := map[string]string{"tdx": "tdx_guest", "snp": "sev-guest"}[tee]
	require.True(t, ok, "nobody knows the guest device of the TEE %q", tee)
	return "test -e /sys/class/misc/" + device
}

// TestPodRunsInTheGuest runs a pod of the payload's runtime class. The pod itself
// says whether it is inside of the TEE, and which kernel it runs on.
func TestPodRunsInTheGuest(t *testing.T) {
	path, err := runfiles.Rlocation(os.Getenv("KILN_PAYLOAD_RECEIPT"))
	require.NoError(t, err)
	r, err := receipt.ReadFile(path)
	require.NoError(t, err)
	class := "kata-" + os.Getenv("KILN_RUNTIME_CLASS")
	image := os.Getenv("KILN_TEST_IMAGE")
	require.NotEmpty(t, image, "KILN_TEST_IMAGE must name an image with a shell that the cluster can pull")
	kubeconfig := os.Getenv("KUBECONFIG")
	require.NotEmpty(t, kubeconfig, "KUBECONFIG must name the cluster that has the hardware")
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	require.NoError(t, err)
	client, err := clientset.NewForConfig(config)
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	runtimeClass, err := client.NodeV1().RuntimeClasses().Get(ctx, class, metav1.GetOptions{})
	require.NoError(t, err, "is payload %s installed?", r.Reference())
	require.Equal(t, class, runtimeClass.Handler)

	logs := run(ctx, t, client, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "kiln-" + r.Platform + "-"},
		Spec: corev1.PodSpec{
			RuntimeClassName: &class,
			RestartPolicy:    corev1.RestartPolicyNever,
			Containers: []corev1.Container{{
				Name:    "probe",
				Image:   image,
				Command: []string{"sh", "-c", insideOf(t, os.Getenv("KILN_TEE")) + " && uname -r"},
			}},
		},
	})
	for _, c := range r.Components {
		if c.Name == "kernel" {
			upstream := regexp.MustCompile(`^[0-9.]+`).FindString(c.Version)
			require.True(t, strings.HasPrefix(logs, upstream), "the guest runs kernel %q, the payload has %s: another payload is installed", logs, c.Version)
			return
		}
	}
	require.Fail(t, "the payload has no kernel")
}

// run runs a pod to its end and gives what it printed. The pod goes away with
// the test.
func run(ctx context.Context, t *testing.T, client clientset.Interface, pod *corev1.Pod) string {
	t.Helper()
	pods := client.CoreV1().Pods(metav1.NamespaceDefault)
	pod, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, pods.Delete(ctx, pod.Name, metav1.DeleteOptions{}))
	})
	for {
		pod, err = pods.Get(ctx, pod.Name, metav1.GetOptions{})
		require.NoError(t, err)
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			break
		}
		select {
		case <-ctx.Done():
			require.Fail(t, "the pod did not end in time", "%+v", pod.Status)
		case <-time.After(time.Second):
		}
	}
	logs, err := pods.GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
	require.NoError(t, err)
	require.Equal(t, corev1.PodSucceeded, pod.Status.Phase, "the guest is not inside of the TEE: %s %+v", logs, pod.Status)
	return string(logs)
}
