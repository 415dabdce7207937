package machine

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/kiln-build/kiln/tools/syncbuffer"
)

// childName is the program name by which the program knows, when it is executed
// again, that it is to be a part of a machine.
const childName = "kiln-machine"

const (
	roleWatchdog = "watchdog"
	roleKeeper   = "keeper"
	roleInit     = "init"
	roleEnter    = "enter"
)

// IfChild takes over the process when it was started by this package, and does not
// return then.
func IfChild() {
	if os.Args[0] != childName || len(os.Args) < 2 {
		return
	}
	roles := map[string]func([]string) (int, error){
		roleWatchdog: watchdog,
		roleKeeper:   keeper,
		roleInit:     initMachine,
		roleEnter:    enter,
	}
	role, ok := roles[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: no such role: %s\n", childName, os.Args[1])
		os.Exit(1)
	}
	// Namespaces belong to a thread.
	runtime.LockOSThread()
	code, err := role(os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// child is this program, executed again in a role.
type child struct {
	process *os.Process
	in      io.WriteCloser
	out     *bufio.Reader
	said    syncbuffer.Buffer
	ended   chan struct{}
}

func (c *child) wait() { <-c.ended }

// startChild starts a child, to which there are pipes. A thread waits for it that
// ends after it: PDEATHSIG counts threads.
func startChild(role string, args []string, attributes *syscall.SysProcAttr) (*child, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{childName, role}, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = attributes
	c := &child{ended: make(chan struct{})}
	cmd.Stderr = &c.said
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = writer
	c.out = bufio.NewReader(reader)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = writer.Close()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // what it said says it
		close(c.ended)
	}()
	if err := <-started; err != nil {
		_ = reader.Close()
		return nil, err
	}
	c.process = cmd.Process
	return c, nil
}
