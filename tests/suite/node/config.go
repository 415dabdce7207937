package node

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kiln-build/kiln/tests/suite/node/machine"
	"github.com/kiln-build/kiln/tests/suite/node/pki"
)

// Name and Address are the node's, as Kubernetes knows it.
const (
	Name    = "node1"
	Address = "10.90.0.1"
)

// PauseImage is an image that is on each node: a program that waits until it is
// stopped. Given arguments, it prints them first.
const PauseImage = "kiln.invalid/pause:1"

const (
	serviceAddress    = "10.96.0.1"
	etcdURL           = "http://127.0.0.1:2379"
	certificates      = "/etc/kubernetes/pki"
	kubeletConfigFile = "/etc/kubernetes/kubelet.yaml"
	pauseFile         = "/usr/lib/kiln/pause.tar"
	kubernetesFile    = "/usr/lib/kiln/kubernetes"
)

func kubeconfigFile(user string) string { return "/etc/kubernetes/" + user + ".conf" }

// server is the address of the API for all programs of the node.
const server = "https://127.0.0.1:443"

// containerdConfig is a node's as an administrator has it. What differs from the
// defaults is what a machine without AppArmor, and without the right to make a process
// more important than it was, asks for; Debian's place for CNI; and the image of pods'
// sandboxes.
const containerdConfig = `version = 3

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "` + PauseImage + `"

[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
`

// cniConfig keeps its leases where a restart of the node ends them, as it ends pods'
// networks.
const cniConfig = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni/networks",
        "ranges": [[{"subnet": "10.88.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: ` + certificates + `/ca.crt}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# The disk is memory, and is full when memory is.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
failCgroupV1: false
failSwapOn: false
healthzBindAddress: 127.0.0.1
oomScoreAdj: 0
readOnlyPort: 0
resolvConf: ""
`

// kubeletSysctls are settings that a kubelet makes on a machine that is its own. The
// node's is not, so it shall find them made.
func kubeletSysctls() map[string]string {
	return map[string]string{
		"kernel/keys/root_maxbytes": "25000000",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
	}
}

// wanted gives the settings of this kernel that are others, or not there.
func wanted(settings map[string]string, dir string) (map[string]string, error) {
	differ := map[string]string{}
	for name, value := range settings {
		is, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading a setting of the kernel: %w", err)
		}
		if strings.TrimSpace(string(is)) != value {
			differ[name] = value
		}
	}
	return differ, nil
}

// credentials are what the node's programs prove to each other who they are with.
type credentials struct {
	authority *pki.Authority
	apiserver pki.Pair
	users     map[string]pki.Pair
	// signing and verifying are the keys of service accounts' tokens.
	signing, verifying []byte
}

// admin is the user who may do anything.
const admin = "admin"

func newCredentials(now time.Time) (*credentials, error) {
	c := &credentials{users: map[string]pki.Pair{}}
	var err error
	if c.authority, err = pki.NewAuthority(now); err != nil {
		return nil, err
	}
	if c.apiserver, err = c.authority.Issue(pki.Subject{
		// It is the API server's name when it asks a kubelet, too.
		Name:      "kube-apiserver",
		Groups:    []string{"system:masters"},
		Hosts:     []string{"localhost", Name, "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		Addresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(Address), net.ParseIP(serviceAddress)},
	}); err != nil {
		return nil, err
	}
	for name, subject := range map[string]pki.Subject{
		admin:                {Name: "kiln:admin", Groups: []string{"system:masters"}},
		"controller-manager": {Name: "system:kube-controller-manager"},
		"kubelet":            {Name: "system:node:" + Name, Groups: []string{"system:nodes"}},
		"scheduler":          {Name: "system:kube-scheduler"},
	} {
		if c.users[name], err = c.authority.Issue(subject); err != nil {
			return nil, err
		}
	}
	c.signing, c.verifying, err = pki.SigningKey()
	return c, err
}

func (c *credentials) kubeconfig(user string) string {
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: node
  cluster: {server: "%s", certificate-authority-data: %s}
users:
- name: %s
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: node
  context: {cluster: node, user: %s}
current-context: node
`, server, text(c.authority.Certificate), user, text(c.users[user].Certificate), text(c.users[user].Key), user)
}

// files are what is written into the root file system before the node starts.
func files(c *credentials, pause []byte) []machine.File {
	list := []machine.File{
		{Path: "/etc/machine-id", Content: []byte("6b696c6e6b696c6e6b696c6e6b696c6e\n")},
		{Path: "/etc/hostname", Content: []byte(Name + "\n")},
		{Path: "/etc/hosts", Content: []byte("127.0.0.1 localhost\n" + Address + " " + Name + "\n")},
		{Path: "/etc/resolv.conf"},
		{Path: "/etc/containerd/config.toml", Content: []byte(containerdConfig)},
		{Path: "/etc/cni/net.d/10-pods.conflist", Content: []byte(cniConfig)},
		{Path: kubeletConfigFile, Content: []byte(kubeletConfig)},
		{Path: pauseFile, Content: pause},
		{Path: certificates + "/ca.crt", Content: c.authority.Certificate},
		{Path: certificates + "/apiserver.crt", Content: c.apiserver.Certificate},
		{Path: certificates + "/apiserver.key", Content: c.apiserver.Key, Mode: 0o600},
		{Path: certificates + "/sa.key", Content: c.signing, Mode: 0o600},
		{Path: certificates + "/sa.pub", Content: c.verifying},
	}
	for user := range c.users {
		list = append(list, machine.File{Path: kubeconfigFile(user), Content: []byte(c.kubeconfig(user)), Mode: 0o600})
	}
	for path, content := range units() {
		list = append(list, machine.File{Path: path, Content: []byte(content)})
	}
	for i := range list {
		if list[i].Mode == 0 {
			list[i].Mode = 0o644
		}
	}
	return list
}

// pauseImage packs the pause program as an image, in the form that is imported.
func pauseImage(program string) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("making the image %s: %w", PauseImage, err) }
	binary, err := os.ReadFile(program)
	if err != nil {
		return fail(err)
	}
	image, err := SingleFileImage("/pause", binary)
	if err != nil {
		return fail(err)
	}
	tag, err := name.NewTag(PauseImage)
	if err != nil {
		return fail(err)
	}
	var out bytes.Buffer
	if err := tarball.Write(tag, image, &out); err != nil {
		return fail(err)
	}
	return out.Bytes(), nil
}

// SingleFileImage makes an image of one static program, which is its entry point.
func SingleFileImage(path string, program []byte) (v1.Image, error) {
	layer, err := layerOf(path, program)
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	config.Config.Entrypoint = []string{path}
	return mutate.ConfigFile(image, config)
}

func layerOf(path string, content []byte) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
}
