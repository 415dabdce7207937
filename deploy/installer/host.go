package installer

import "github.com/kiln-build/kiln/deploy/containerd"

// host is what a node runs: by which units of systemd, and where its runtime listens.
type host struct {
	// runtime are the units that may be the container runtime; which of them a node
	// has depends on its role.
	runtime []string
	// kubelet are those that may be the kubelet, if it is not the same unit.
	kubelet []string
	socket  string
}

// hostOf finds out by the name of the runtime and the distribution of Kubernetes.
func hostOf(runtime, distribution string) host {
	if runtime == "cri-o" {
		return host{[]string{"crio.service"}, []string{"kubelet.service"}, "/run/crio/crio.sock"}
	}
	switch distribution {
	case containerd.K3s:
		return host{[]string{"k3s.service", "k3s-agent.service"}, nil, "/run/k3s/containerd/containerd.sock"}
	case containerd.RKE2:
		return host{[]string{"rke2-server.service", "rke2-agent.service"}, nil, "/run/k3s/containerd/containerd.sock"}
	case containerd.K0s:
		return host{[]string{"k0scontroller.service", "k0sworker.service"}, nil, "/run/k0s/containerd.sock"}
	case containerd.MicroK8s:
		return host{
			[]string{"snap.microk8s.daemon-containerd.service"}, []string{"snap.microk8s.daemon-kubelite.service"},
			"/var/snap/microk8s/common/run/containerd.sock",
		}
	}
	return host{[]string{"containerd.service"}, []string{"kubelet.service"}, "/run/containerd/containerd.sock"}
}
