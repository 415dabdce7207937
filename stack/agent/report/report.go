// Package report is the document in which the guest agent says what it found
// in the guest, and the line on the console that carries it.
package report

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Marker starts the console line that carries the report.
const Marker = "KILN-AGENT-REPORT "

// SchemaVersion is the version of the document that this package writes.
const SchemaVersion = 1

// Names of the checks.
const (
	CheckMounts     = "mounts"
	CheckRootDevice = "root-device"
	CheckRootRO     = "root-read-only"
	CheckVerity     = "verity-status"
	CheckRootHash   = "verity-root-hash"
	CheckTEEDrivers = "tee-drivers"
	CheckTSM        = "tsm-reports"
	CheckBlock      = "virtio-blk"
	CheckVsock      = "vsock"
)

// ErrNoReport means that a console ended without a report.
var ErrNoReport = errors.New("no agent report on the console")

// Report is what the agent found.
type Report struct {
	SchemaVersion int      `json:"schemaVersion"`
	OK            bool     `json:"ok"`
	Agent         Agent    `json:"agent"`
	Kernel        Kernel   `json:"kernel"`
	Boot          Boot     `json:"boot"`
	Root          Root     `json:"root"`
	TEE           TEE      `json:"tee"`
	Vsock         Vsock    `json:"vsock"`
	Virtio        []Virtio `json:"virtio"`
	Blocks        []string `json:"blocks"`
	Mounts        []Mount  `json:"mounts"`
	Checks        []Check  `json:"checks"`
}

// Agent names who reports.
type Agent struct {
	Kind    string `json:"kind"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
}

// Kernel is the running kernel.
type Kernel struct {
	Release     string `json:"release"`
	CommandLine string `json:"commandLine"`
}

// Boot says how the guest came up.
type Boot struct {
	EFI           bool   `json:"efi"`
	UptimeSeconds string `json:"uptimeSeconds"`
}

// Root is the root file system and the device under it.
type Root struct {
	Device   string  `json:"device"`
	Type     string  `json:"type"`
	ReadOnly bool    `json:"readOnly"`
	Verity   *Verity `json:"verity,omitempty"`
}

// Verity is the state of the dm-verity target that backs the root.
type Verity struct {
	Name       string `json:"name"`
	Status     string `json:"status"`
	DataDevice string `json:"dataDevice"`
	HashDevice string `json:"hashDevice"`
	DataBlocks string `json:"dataBlocks"`
	Algorithm  string `json:"algorithm"`
	RootHash   string `json:"rootHash"`
	Salt       string `json:"salt"`
}

// TEE says which trusted execution environments the kernel could use, and
// which one it runs in.
type TEE struct {
	Active  string   `json:"active"`
	Drivers []Driver `json:"drivers"`
	TSM     bool     `json:"tsm"`
}

// Driver is one guest driver of a TEE. Without the hardware a driver that is
// built in has no device.
type Driver struct {
	Option  string `json:"option"`
	BuiltIn bool   `json:"builtIn"`
	Device  string `json:"device"`
	Present bool   `json:"present"`
}

// Vsock is the transport on which the agent answers.
type Vsock struct {
	ContextID uint32 `json:"contextID"`
	Port      uint32 `json:"port"`
	Listening bool   `json:"listening"`
	Error     string `json:"error,omitempty"`
}

// Virtio is one virtio device and the driver bound to it.
type Virtio struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Driver string `json:"driver"`
}

// Mount is one line of the mount table.
type Mount struct {
	Target   string `json:"target"`
	Type     string `json:"type"`
	Source   string `json:"source"`
	ReadOnly bool   `json:"readOnly"`
}

// Check is the verdict on one thing that the guest must have.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Check gives the check of that name.
func (r *Report) Check(name string) (Check, bool) {
	for _, c := range r.Checks {
		if c.Name == name {
			return c, true
		}
	}
	return Check{}, false
}

// Write puts the report on the console, as one line in one write, so that
// nothing else that writes there can split it.
func Write(w io.Writer, r *Report) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the agent report: %w", err)
	}
	// The leading newline keeps the marker at the start of a line even when
	// a message of the kernel stands unfinished on the console.
	if _, err := io.WriteString(w, "\n"+Marker+string(doc)+"\n"); err != nil {
		return fmt.Errorf("writing the agent report: %w", err)
	}
	return nil
}

// Parse reads the report from one console line. ok is false for a line that
// carries none.
func Parse(line string) (r *Report, ok bool, err error) {
	_, doc, found := strings.Cut(line, Marker)
	if !found {
		return nil, false, nil
	}
	r = &Report{}
	if err := json.Unmarshal([]byte(strings.TrimSpace(doc)), r); err != nil {
		return nil, true, fmt.Errorf("decoding the agent report: %w", err)
	}
	if r.SchemaVersion != SchemaVersion {
		return nil, true, fmt.Errorf("agent report has schema version %d, want %d", r.SchemaVersion, SchemaVersion)
	}
	return r, true, nil
}

// Find reads a console until a report comes.
func Find(console io.Reader) (*Report, error) {
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if r, ok, err := Parse(lines.Text()); ok {
			return r, err
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the console: %w", err)
	}
	return nil, ErrNoReport
}
