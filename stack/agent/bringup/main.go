//go:build linux

// Command bringup is Kiln's guest agent for machines that cannot reach
// upstream's: the guest's first process. It mounts what a guest needs, checks
// that the guest is the measured one, reports on the console, answers the
// agent's health calls over vsock and stays as the parent of orphans.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/kiln-build/kiln/stack/agent/bringup/health"
	"github.com/kiln-build/kiln/stack/agent/bringup/inspect"
	"github.com/kiln-build/kiln/stack/agent/bringup/pid1"
	"github.com/kiln-build/kiln/stack/agent/report"
)

const (
	version = "0.1.0"
	// agentPort is where a Kata runtime looks for the agent.
	agentPort = 1024
	// powerOffParameter on the kernel command line ends the guest after the
	// report.
	powerOffParameter = "kiln.poweroff=1"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "kiln agent: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()

	isInit := os.Getpid() == 1
	var mountErrors []error
	if isInit {
		mountErrors = pid1.MountAll(pid1.Mounts, "/", unix.Mount)
		go pid1.Reap(ctx)
	}

	listener, err := vsock.Listen(agentPort, nil)
	state := report.Vsock{Port: agentPort, Listening: err == nil}
	if err != nil {
		state.Error = fmt.Sprintf("listening on vsock port %d: %v", agentPort, err)
	}
	if id, err := vsock.ContextID(); err == nil {
		state.ContextID = id
	}

	found := inspect.Inspect(inspect.Guest{
		Root:        os.DirFS("/"),
		Prober:      pid1.DeviceMapper{Control: pid1.KernelTableStatus},
		Vsock:       state,
		Agent:       report.Agent{Kind: "bringup", Version: version, PID: os.Getpid()},
		MountErrors: mountErrors,
	})
	if err := writeReport(found); err != nil {
		fmt.Fprintf(os.Stderr, "kiln agent: %v\n", err)
	}

	if isInit && wantsPowerOff(found.Kernel.CommandLine) {
		return pid1.PowerOff()
	}
	if listener != nil {
		service := &health.Service{AgentVersion: "kiln-bringup-" + version, Healthy: found.OK}
		if err := health.Serve(ctx, listener, service); err != nil {
			fmt.Fprintf(os.Stderr, "kiln agent: %v\n", err)
		}
	}
	// The first process must never return by itself: the kernel panics.
	<-ctx.Done()
	if isInit {
		return pid1.PowerOff()
	}
	return nil
}

func writeReport(found *report.Report) error {
	var console io.Writer = os.Stdout
	if f, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
		defer func() { _ = f.Close() }()
		console = f
	}
	unmute := pid1.MuteKernel()
	defer unmute()
	return report.Write(console, found)
}

func wantsPowerOff(commandLine string) bool {
	for _, field := range strings.Fields(commandLine) {
		if field == powerOffParameter {
			return true
		}
	}
	return false
}
