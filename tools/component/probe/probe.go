// Package probe is a stand-in for bash in the roots of tests: it runs scripts
// that look around, so that a test needs no root of Debian packages to see
// what a build script would see.
package probe

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Shell is where Install puts the probe, and where build scripts expect bash.
const Shell = "bin/bash"

// IfShell takes over the process when it was started as bash, and does not
// return then.
func IfShell() {
	if filepath.Base(os.Args[0]) != filepath.Base(Shell) {
		return
	}
	os.Exit(Main())
}

// Main runs the script that is the last argument and gives its exit status.
func Main() int {
	script, err := os.Open(os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	defer script.Close()
	p := prober{out: os.Stdout}
	for lines := bufio.NewScanner(script); lines.Scan(); {
		line := os.ExpandEnv(strings.TrimSpace(lines.Text()))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		if name == "exit" {
			status, err := strconv.Atoi(rest)
			if err != nil {
				return 125
			}
			return status
		}
		if err := p.run(name, rest); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", line, err)
			return 1
		}
	}
	return 0
}

type prober struct{ out io.Writer }

func (p *prober) run(name, args string) error {
	first, second, _ := strings.Cut(args, " ")
	switch name {
	case "report": // PATH: what follows is printed into a file
		f, err := os.Create(first)
		p.out = f
		return err
	case "print":
		fmt.Fprintln(p.out, args)
	case "environment":
		env := os.Environ()
		slices.Sort(env)
		fmt.Fprintln(p.out, strings.Join(env, "\n"))
	case "hostname":
		h, err := os.Hostname()
		fmt.Fprintln(p.out, "hostname", h)
		return err
	case "directory":
		d, err := os.Getwd()
		fmt.Fprintln(p.out, "directory", d)
		return err
	case "user":
		fmt.Fprintln(p.out, "user", os.Getuid(), os.Getgid())
	case "read": // PATH
		text, err := os.ReadFile(first)
		fmt.Fprintf(p.out, "read %s: %s\n", first, outcome(err, strings.TrimSpace(string(text))))
	case "append": // PATH TEXT: tries to change a file
		f, err := os.OpenFile(first, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.WriteString(second)
			err = errors.Join(err, f.Close())
		}
		fmt.Fprintf(p.out, "append %s: %s\n", first, outcome(err, "done"))
	case "tree": // every path there is
		return p.tree()
	case "others": // processes that can be looked into
		return p.others()
	case "interfaces":
		return p.interfaces()
	case "connect": // ADDRESS
		conn, err := net.DialTimeout("tcp", first, 2*time.Second)
		if err == nil {
			conn.Close()
		}
		fmt.Fprintf(p.out, "connect %s: %s\n", first, outcome(err, "connected"))
	case "write": // PATH TEXT
		if err := os.MkdirAll(filepath.Dir(first), 0o755); err != nil {
			return err
		}
		return os.WriteFile(first, []byte(second), 0o644)
	case "mkdir":
		return os.MkdirAll(first, 0o755)
	case "link": // PATH TARGET
		return os.Symlink(second, first)
	case "fifo":
		return syscall.Mkfifo(first, 0o644)
	case "chmod": // MODE PATH, where the mode is as for chmod(1)
		mode, err := strconv.ParseUint(first, 8, 32)
		if err != nil {
			return err
		}
		return syscall.Chmod(second, uint32(mode))
	case "background": // COMMAND: goes on after the script has ended
		return exec.Command("/proc/self/exe", args).Start()
	case "sleep":
		time.Sleep(time.Minute)
	default:
		return errors.New("no such command")
	}
	return nil
}

func outcome(err error, success string) string {
	if err == nil {
		return success
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		return "error: " + no.Error()
	}
	return "error: " + err.Error()
}

func (p *prober) tree() error {
	return filepath.WalkDir("/", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(p.out, "path", name)
		if name == "/proc" {
			return fs.SkipDir
		}
		return nil
	})
}

// others tries the roots of all processes in sight, which would be a way
// around a root of one's own.
func (p *prober) others() error {
	processes, err := filepath.Glob("/proc/[0-9]*/root")
	if err != nil {
		return err
	}
	own, err := os.Stat("/")
	if err != nil {
		return err
	}
	seen := 0
	for _, root := range processes {
		info, err := os.Stat(root + "/.")
		if err == nil && !os.SameFile(own, info) {
			seen++
		}
	}
	fmt.Fprintln(p.out, "others", seen)
	return nil
}

func (p *prober) interfaces() error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range all {
		fmt.Fprintln(p.out, "interface", i.Name, i.Flags)
	}
	return nil
}

// Install puts the running program into a root, as the shell. The program
// calls IfShell first thing in main.
func Install(root string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := copyFile(self, filepath.Join(root, Shell)); err != nil {
		return err
	}
	libraries, err := libraries(self)
	if err != nil {
		return fmt.Errorf("finding the libraries of %s: %w", self, err)
	}
	for _, lib := range libraries {
		if err := copyFile(lib, filepath.Join(root, lib)); err != nil {
			return err
		}
	}
	return nil
}

// libraries lists what a program needs to start. A test binary of Bazel needs
// nothing, one of "go test" may be linked dynamically.
func libraries(program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, segment := range f.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(segment.Open())
		if err != nil {
			return nil, err
		}
		loader := strings.TrimRight(string(name), "\x00")
		list, err := exec.Command(loader, "--list", program).Output()
		if err != nil {
			return nil, err
		}
		found := []string{loader}
		for _, field := range strings.Fields(string(list)) {
			if filepath.IsAbs(field) && !slices.Contains(found, field) {
				found = append(found, field)
			}
		}
		return found, nil
	}
	return nil, nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return dst.Close()
}
