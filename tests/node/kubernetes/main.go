// Command kubernetes is the programs of a small cluster in one file: each of
// them by the name that the file is called by, or by its first argument. They
// have most of their code in common, so that one file is a fifth of what they
// are together.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"go.etcd.io/etcd/server/v3/etcdmain"
	helm "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// programs gives the function that runs each program to its end and returns
// its exit code.
func programs() map[string]func() int {
	return map[string]func() int{
		"etcd": func() int {
			etcdmain.Main(os.Args)
			return 0
		},
		"helm":                    runHelm,
		"kube-apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
		"kube-controller-manager": func() int { return cli.Run(controllermanager.NewControllerManagerCommand()) },
		"kube-scheduler":          func() int { return cli.Run(scheduler.NewSchedulerCommand()) },
		"kubectl":                 func() int { return cli.Run(kubectl.NewDefaultKubectlCommand()) },
		"kubelet":                 func() int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) },
	}
}

func main() {
	all := programs()
	run, ok := all[filepath.Base(os.Args[0])]
	if !ok && len(os.Args) > 1 {
		run, ok = all[os.Args[1]]
		os.Args = os.Args[1:]
	}
	if !ok {
		names := make([]string, 0, len(all))
		for name := range all {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "kubernetes: no such program; call it as, or with, one of %s\n", strings.Join(names, ", "))
		os.Exit(2)
	}
	os.Exit(run())
}

func runHelm() int {
	kube.ManagedFieldsManager = "helm"
	cmd, err := helm.NewRootCmd(os.Stdout, os.Args[1:], helm.SetupLogging)
	if err == nil {
		err = cmd.Execute()
	} else {
		fmt.Fprintln(os.Stderr, "helm:", err)
	}
	if err == nil {
		return 0
	}
	var failed helm.CommandError
	if errors.As(err, &failed) {
		return failed.ExitCode
	}
	return 1
}
