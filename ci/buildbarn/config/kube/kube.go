// Package kube renders a cluster's engine as Kubernetes manifests. The
// configurations in them are those of package config.
package kube

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
)

// Engine is what is rendered.
type Engine struct {
	config.Cluster
	// Namespace is the engine's own.
	Namespace string
	// Image holds Buildbarn's programs and whatever actions expect on a machine.
	// kustomization.yaml says where it is.
	Image string
	// Volume is the size of a storage node's volume, which is more than
	// config.Cluster.NodeSize.
	Volume string
	// Frontends bounds how many frontends there are.
	Frontends Range
}

// Range is from the least to the most.
type Range struct{ Minimum, Maximum int32 }

// Default is the engine whose manifests are checked in.
func Default() Engine {
	return Engine{
		Cluster: config.Cluster{
			Settings: config.Default(),
			Shards:   3,
			NodeSize: 180 << 30,
			Pools: []config.Pool{
				{
					Kind: config.Plain, Concurrency: 2, Minimum: 1, Maximum: 20,
					CPU: "8", Memory: "16Gi", Disk: "100Gi",
				},
				{
					Kind: config.KVM, Concurrency: 1, Minimum: 1, Maximum: 8,
					CPU: "4", Memory: "16Gi", Disk: "50Gi",
					Resources: map[string]string{"devices.kubevirt.io/kvm": "1"},
				},
				{
					Kind: config.TDX, Concurrency: 1, Minimum: 1, Maximum: 1,
					CPU: "4", Memory: "16Gi", Disk: "50Gi",
					Resources: map[string]string{"devices.kubevirt.io/kvm": "1"},
					Nodes:     map[string]string{"feature.node.kubernetes.io/cpu-security.tdx.enabled": "true"},
				},
			},
		},
		Namespace: "buildbarn",
		Image:     "buildbarn",
		Volume:    "200Gi",
		Frontends: Range{Minimum: 2, Maximum: 10},
	}
}

// Secrets are what must be there before the manifests are applied, as name and keys.
// They are not rendered, since nobody writes keys down.
func Secrets() map[string][]string {
	pair := []string{"tls.crt", "tls.key", "ca.crt"}
	return map[string][]string{
		credentials(config.StorageA):      pair,
		credentials(config.StorageB):      pair,
		credentials(config.FrontendPart):  pair,
		credentials(config.SchedulerPart): pair,
		credentials(config.WorkerPart):    pair,
		publicSecret:                      {"tls.crt", "tls.key"},
		keysSecret:                        {"jwks.json"},
	}
}

func credentials(part config.Part) string { return string(part) + "-tls" }

const (
	publicSecret = "public-tls"
	keysSecret   = "client-keys"
)

// pods says where things are in the pods of the manifests.
type pods struct{ namespace string }

func (pods) Listen(_ config.Part, _ int, port config.Port) string { return fmt.Sprintf(":%d", port) }

func (p pods) Dial(part config.Part, n int, port config.Port) string {
	switch part {
	case config.StorageA, config.StorageB:
		return fmt.Sprintf("%s-%d.%s.%s.svc.cluster.local:%d", part, n, part, p.namespace, port)
	}
	return fmt.Sprintf("%s.%s.svc.cluster.local:%d", part, p.namespace, port)
}

// Directories in the pods.
const (
	configDirectory      = "/config"
	credentialsDirectory = "/credentials"
	publicDirectory      = "/public"
	keysDirectory        = "/keys"
	filesDirectory       = "/kiln"
)

func (pods) Credentials(config.Part) string { return credentialsDirectory }
func (pods) Public() string                 { return publicDirectory }
func (pods) Keys() string                   { return keysDirectory + "/jwks.json" }
func (pods) Files(config.Part, int) string  { return filesDirectory }

// header says in each file where it comes from.
const header = "# Written by `bazel run //ci/buildbarn/kubernetes:update`. See docs/buildbarn.md.\n"

// Render gives the manifests by file name.
func (e Engine) Render() (map[string][]byte, error) {
	places := pods{namespace: e.Namespace}
	files := map[string][]runtime.Object{"namespace.yaml": {e.namespace()}, "network.yaml": e.policies()}
	for _, make := range []func(pods) (string, []runtime.Object, error){e.storage, e.frontend, e.scheduler, e.workers} {
		name, objects, err := make(places)
		if err != nil {
			return nil, err
		}
		files[name] = objects
	}
	rendered := map[string][]byte{}
	for name, objects := range files {
		var b bytes.Buffer
		b.WriteString(header)
		for _, object := range objects {
			if err := write(&b, object); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		rendered[name] = b.Bytes()
	}
	rendered["kustomization.yaml"] = e.kustomization(rendered)
	return rendered, nil
}

// write writes an object as a document of its own, without what only a cluster
// fills in.
func write(w io.Writer, object runtime.Object) error {
	kinds, _, err := scheme.Scheme.ObjectKinds(object)
	if err != nil {
		return fmt.Errorf("finding the kind of an object: %w", err)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return fmt.Errorf("converting a %s: %w", kinds[0].Kind, err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(kinds[0])
	delete(u.Object, "status")
	prune(u.Object)
	if _, err := io.WriteString(w, "---\n"); err != nil {
		return err
	}
	s := json.NewSerializerWithOptions(json.DefaultMetaFactory, nil, nil, json.SerializerOptions{Yaml: true})
	if err := s.Encode(u, w); err != nil {
		return fmt.Errorf("writing a %s: %w", kinds[0].Kind, err)
	}
	return nil
}

// prune drops fields that are null, and what is left empty of metadata that a
// template or a claim has nothing to say in.
func prune(object map[string]any) {
	for key, value := range object {
		switch v := value.(type) {
		case nil:
			delete(object, key)
		case map[string]any:
			prune(v)
			if len(v) == 0 && (key == "metadata" || key == "status" || key == "strategy" || key == "updateStrategy" || key == "resources") {
				delete(object, key)
			}
		case []any:
			for _, element := range v {
				if m, ok := element.(map[string]any); ok {
					prune(m)
				}
			}
		}
	}
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])[:16]
}
