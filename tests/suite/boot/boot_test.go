//go:build payload

package boot_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/containerd/ttrpc"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/agent/healthpb"
	"github.com/kiln-build/kiln/stack/agent/report"
	"github.com/kiln-build/kiln/tests/suite/boot"
	"github.com/kiln-build/kiln/tests/suite/contract"
	"github.com/kiln-build/kiln/tests/suite/payloadtest"
	"github.com/kiln-build/kiln/tests/suite/testtools"
	"github.com/kiln-build/kiln/tests/suite/vm"
)

const (
	// classVariable names the runtime class whose guest is booted.
	classVariable = "KILN_RUNTIME_CLASS"
	// firmwareVariable is the kind of firmware that the guest is started by; none if
	// it has none.
	firmwareVariable = "KILN_FIRMWARE"
	// toolsVariable is the runfile with the root of the test tools.
	toolsVariable = "KILN_TEST_TOOLS"
	agentPort     = 1024
	// reported is in every report, also in one whose marker was damaged.
	reported  = `"schemaVersion":`
	memoryMiB = 512
	// bootDeadline is for a guest that hangs. Success and failure are both
	// seen on the console long before.
	bootDeadline = 8 * time.Minute
)

// setup is the payload that is under test.
type setup struct {
	config                 *boot.Configuration
	qemu, kernel, firmware string
	image                  string
	device                 []string
	agent                  string
}

// pull pulls the payload and finds what its configuration names.
func pull(t *testing.T) *setup {
	t.Helper()
	class := os.Getenv(classVariable)
	require.NotEmpty(t, class, "%s does not name a runtime class", classVariable)
	payload := payloadtest.Pull(t)
	config, err := boot.ReadConfiguration(payload.Dir, class)
	require.NoError(t, err)
	s := &setup{config: config, agent: payload.Receipt.Agent}
	for _, file := range []struct {
		to     *string
		onNode string
	}{
		{&s.qemu, config.Path}, {&s.kernel, config.Kernel}, {&s.image, config.Image}, {&s.firmware, config.Firmware},
	} {
		if file.onNode == "" {
			continue // what must be there, ReadConfiguration has asked for
		}
		*file.to, err = boot.Locate(payload.Dir, file.onNode)
		require.NoError(t, err)
	}
	archive, err := runfiles.Rlocation(os.Getenv(toolsVariable))
	require.NoError(t, err)
	tools, err := testtools.Unpack(archive, t.TempDir())
	require.NoError(t, err)
	s.device, err = tools.Command("usr/bin/vhost-device-vsock")
	require.NoError(t, err)
	return s
}

// machine is how the payload's guest is booted directly, as QEMU loads a
// kernel without firmware of the payload.
func (s *setup) machine() vm.Config {
	return vm.Config{
		QEMU:             []string{s.qemu},
		VhostDeviceVsock: s.device,
		Machine:          s.config.MachineType,
		Kernel:           s.kernel,
		CommandLine:      s.config.CommandLine(),
		Image:            s.image,
		MemoryMiB:        memoryMiB,
	}
}

func start(t *testing.T, config vm.Config) (context.Context, *vm.VM) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), bootDeadline, errors.New("the guest hangs"))
	t.Cleanup(cancel)
	began := time.Now()
	machine, err := vm.Start(ctx, config)
	require.NoError(t, err)
	t.Cleanup(func() {
		machine.Close()
		t.Logf("the machine ran for %.1f s", time.Since(began).Seconds())
		if t.Failed() {
			t.Logf("end of the console:\n%s", machine.Console.Tail(80))
			t.Logf("complaints: %s", machine.Errors())
		}
	})
	return ctx, machine
}

// answer is what a sound guest says, on its console and over its vsock.
type answer struct {
	report  *report.Report
	status  healthpb.HealthCheckResponse_ServingStatus
	version *healthpb.VersionCheckResponse
}

// boots boots a machine, which must reach the agent, and asks the agent.
func boots(t *testing.T, config vm.Config) answer {
	t.Helper()
	ctx, machine := start(t, config)
	line, err := machine.Console.WaitFor(ctx, report.Marker)
	require.NoError(t, err, "the agent did not report")
	var a answer
	a.report, _, err = report.Parse(line)
	require.NoError(t, err)

	conn, err := machine.DialVsock(ctx, agentPort)
	require.NoError(t, err)
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() { _ = client.Close() })
	health := healthpb.NewHealthClient(client)
	check, err := health.Check(ctx, &healthpb.CheckRequest{})
	require.NoError(t, err)
	a.status = check.GetStatus()
	a.version, err = health.Version(ctx, &healthpb.CheckRequest{})
	require.NoError(t, err)
	return a
}

// requireSound asserts that the guest is the one that the payload promises.
func requireSound(t *testing.T, s *setup, a answer) {
	t.Helper()
	for _, c := range a.report.Checks {
		require.True(t, c.OK, "the agent's check %s failed: %s", c.Name, c.Detail)
	}
	require.True(t, a.report.OK)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, a.status)
	require.Equal(t, "0.0.1", a.version.GetGrpcVersion())
	require.Contains(t, a.version.GetAgentVersion(), s.agent)

	// What the agent calls sound must be what the configuration asked for.
	want, err := boot.RootHash(s.config.CommandLine())
	require.NoError(t, err)
	require.NotNil(t, a.report.Root.Verity)
	require.Equal(t, want, a.report.Root.Verity.RootHash)
	require.Equal(t, "V", a.report.Root.Verity.Status)
	require.Equal(t, "/dev/dm-0", a.report.Root.Device)
	require.Equal(t, s.config.RootfsType, a.report.Root.Type)
	require.True(t, a.report.Root.ReadOnly)
	require.Equal(t, 1, a.report.Agent.PID)
	for _, check := range []string{
		report.CheckMounts, report.CheckRootDevice, report.CheckRootRO, report.CheckVerity, report.CheckRootHash,
		report.CheckTEEDrivers, report.CheckTSM, report.CheckBlock, report.CheckVsock,
	} {
		_, found := a.report.Check(check)
		require.True(t, found, "the agent did not check %s", check)
	}
}

func TestBoot(t *testing.T) {
	s := pull(t)
	sound := t.Run("direct kernel boot", func(t *testing.T) {
		a := boots(t, s.machine())
		requireSound(t, s, a)
		require.False(t, a.report.Boot.EFI)
	})
	switch kind := os.Getenv(firmwareVariable); kind {
	case "":
		require.Empty(t, s.config.Firmware)
	case contract.SEVFirmware:
		// It starts a kernel in a guest of SEV alone: outside of one QEMU hands over no
		// digests to compare. The target `hardware` starts it there.
		require.NotEmpty(t, s.firmware)
	case contract.TDXFirmware:
		t.Run("firmware boot", func(t *testing.T) {
			t.Parallel()
			config := s.machine()
			config.Firmware = s.firmware
			a := boots(t, config)
			requireSound(t, s, a)
			require.True(t, a.report.Boot.EFI, "the guest was not started by the payload's EFI firmware")
		})
	default:
		require.Fail(t, "nobody knows how this firmware starts", kind)
	}

	// Every fault is put into a setup that boots without it, so a guest that
	// does not come up does so because of the fault.
	require.True(t, sound, "faults prove nothing: the same machine does not boot without them")
	flipped := func(place boot.Place) func(*testing.T, *vm.Config) {
		return func(t *testing.T, config *vm.Config) {
			faulty := filepath.Join(t.TempDir(), "image")
			require.NoError(t, boot.FlipByte(s.image, faulty, place))
			config.Image = faulty
		}
	}
	for _, test := range []struct {
		name  string
		fault func(*testing.T, *vm.Config)
	}{
		{"flipped byte of the superblock", flipped(boot.Superblock)},
		{"flipped byte of the agent", flipped(boot.Text(report.Marker))},
		{"flipped byte of the hash tree", flipped(boot.HashTree)},
		{"another root hash", func(t *testing.T, config *vm.Config) {
			wrong, err := boot.WrongRootHash(config.CommandLine)
			require.NoError(t, err)
			config.CommandLine = wrong
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := s.machine()
			test.fault(t, &config)
			ctx, machine := start(t, config)
			_, err := machine.Console.WaitFor(ctx, report.Marker, reported)
			require.ErrorIs(t, err, vm.ErrConsoleEnded, "the guest must stop by itself before the agent reports")
			require.NoError(t, machine.WaitExit(ctx))
			console := machine.Console.Text()
			require.Regexp(t, `device-mapper: verity: .*block \d+ is corrupted`, console)
			require.Contains(t, console, "Kernel panic")
		})
	}
}
