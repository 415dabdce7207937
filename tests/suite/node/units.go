package node

import (
	"fmt"
	"strings"
)

// Units of a node, by the names that systemd has for them.
const (
	UnitContainerd        = "containerd.service"
	UnitEtcd              = "etcd.service"
	UnitAPIServer         = "kube-apiserver.service"
	UnitControllerManager = "kube-controller-manager.service"
	UnitScheduler         = "kube-scheduler.service"
	UnitKubelet           = "kubelet.service"
	unitPause             = "pause-image.service"
	unitTarget            = "node.target"
	// unitLog is /dev/log, without which the shim of Kata does not start.
	unitLog     = "systemd-journald-dev-log.socket"
	unitJournal = "systemd-journald.service"
	// unitFailed is started by a unit that systemd gave up.
	unitFailed = "failed@.service"
)

// Units names all services whose logs a node has.
func Units() []string {
	return []string{UnitEtcd, UnitAPIServer, UnitControllerManager, UnitScheduler, UnitContainerd, unitPause, UnitKubelet}
}

// failedDir has a file for each unit that was given up.
const failedDir = "/run/kiln-failed"

// logFile is where a unit of the node logs.
func logFile(unit string) string {
	return "/var/log/" + strings.TrimSuffix(unit, ".service") + ".log"
}

// common is what all units have in common: they do not wait for a system to boot,
// since nothing but them is started, and one that does not stay up is noted.
const common = `[Unit]
Description=%s
DefaultDependencies=no
After=%s
OnFailure=failed@%%n.service
StartLimitIntervalSec=180
StartLimitBurst=5

[Service]
StandardOutput=append:%s
StandardError=append:%s
TimeoutStartSec=300
%s
`

func unit(name, after string, service ...string) string {
	log := logFile(name)
	return fmt.Sprintf(common, strings.TrimSuffix(name, ".service"), after, log, log, strings.Join(service, "\n"))
}

func daemon(name, after, kind string, command ...string) string {
	return unit(name, after,
		"Type="+kind,
		"ExecStart="+strings.Join(command, " "),
		"Restart=always",
		// Failed is who has used up the attempts.
		"RestartMode=direct",
		"RestartSec=200ms",
		// A start makes much garbage, which costs more time than memory here.
		"Environment=GOGC=400",
		// Containers and their logs outlive the kubelet; nothing else has children.
		"KillMode=process",
	)
}

// units gives all unit files by their path.
func units() map[string]string {
	const dir = "/etc/systemd/system/"
	files := map[string]string{
		unitTarget: "[Unit]\nDescription=A Kubernetes node\nDefaultDependencies=no\nAllowIsolate=yes\nWants=" + unitLog + " " + strings.Join(Units(), " ") + "\n",
		// systemd's own unit, which starts with the first message, but for what a
		// machine without CAP_SYS_RESOURCE cannot raise.
		unitJournal + ".d/node.conf": "[Service]\nLimitNOFILE=\nOOMScoreAdjust=\n",
		unitFailed: "[Unit]\nDescription=Note that %i failed\nDefaultDependencies=no\n\n" +
			"[Service]\nType=oneshot\nExecStart=/usr/bin/mkdir -p " + failedDir + "\nExecStart=/usr/bin/touch " + failedDir + "/%i\n",
		// Debian's unit, but for a priority that a machine without
		// CAP_SYS_RESOURCE cannot give, what is not there to wait for, and the log.
		UnitContainerd + ".d/node.conf": "[Unit]\nDefaultDependencies=no\nAfter=\nOnFailure=failed@%n.service\nStartLimitIntervalSec=180\nStartLimitBurst=5\n\n" +
			"[Service]\nExecStartPre=\n" +
			// systemd has made it read-only. The shim makes directories of controllers there
			// that this machine need not have.
			"ExecStartPre=-/usr/bin/mount -o remount,rw /sys/fs/cgroup\n" +
			"OOMScoreAdjust=\nRestartMode=direct\nRestartSec=200ms\nTimeoutStartSec=300\n" +
			"StandardOutput=append:" + logFile(UnitContainerd) + "\nStandardError=append:" + logFile(UnitContainerd) + "\n",
		unitPause: unit(unitPause, UnitContainerd,
			"Type=oneshot",
			"RemainAfterExit=yes",
			"ExecStart=/usr/bin/ctr --namespace k8s.io images import "+pauseFile,
		),
		UnitEtcd: daemon(UnitEtcd, "", "notify", "/usr/bin/etcd",
			"--data-dir=/var/lib/etcd",
			"--listen-client-urls="+etcdURL,
			"--advertise-client-urls="+etcdURL,
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=default=http://127.0.0.1:2380",
			// Its files are in memory.
			"--unsafe-no-fsync",
			"--log-level=warn",
		),
		UnitAPIServer: daemon(UnitAPIServer, UnitEtcd, "notify", "/usr/bin/kube-apiserver",
			"--etcd-servers="+etcdURL,
			"--advertise-address="+Address,
			// The address of the service is one of the node's own, so that pods
			// reach it without kube-proxy. Then the port is the service's, too.
			"--bind-address=0.0.0.0",
			"--secure-port=443",
			"--endpoint-reconciler-type=none",
			"--service-cluster-ip-range=10.96.0.0/16",
			"--tls-cert-file="+certificates+"/apiserver.crt",
			"--tls-private-key-file="+certificates+"/apiserver.key",
			"--client-ca-file="+certificates+"/ca.crt",
			"--kubelet-client-certificate="+certificates+"/apiserver.crt",
			"--kubelet-client-key="+certificates+"/apiserver.key",
			"--service-account-key-file="+certificates+"/sa.pub",
			"--service-account-signing-key-file="+certificates+"/sa.key",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
		),
		UnitControllerManager: daemon(UnitControllerManager, UnitAPIServer, "exec", "/usr/bin/kube-controller-manager",
			"--kubeconfig="+kubeconfigFile("controller-manager"),
			"--leader-elect=false",
			"--bind-address=127.0.0.1",
			"--service-account-private-key-file="+certificates+"/sa.key",
			"--root-ca-file="+certificates+"/ca.crt",
			"--use-service-account-credentials=true",
			// It makes an account for each of its parts, which takes five seconds
			// at its usual pace.
			"--kube-api-qps=1000",
			"--kube-api-burst=1000",
		),
		UnitScheduler: daemon(UnitScheduler, UnitAPIServer, "exec", "/usr/bin/kube-scheduler",
			"--kubeconfig="+kubeconfigFile("scheduler"),
			"--leader-elect=false",
			"--bind-address=127.0.0.1",
		),
		UnitKubelet: daemon(UnitKubelet, UnitAPIServer+" "+unitPause, "exec", "/usr/bin/kubelet",
			"--config="+kubeletConfigFile,
			"--kubeconfig="+kubeconfigFile("kubelet"),
			"--hostname-override="+Name,
			"--node-ip="+Address,
		),
	}
	placed := map[string]string{}
	for name, content := range files {
		placed[dir+name] = content
	}
	return placed
}
