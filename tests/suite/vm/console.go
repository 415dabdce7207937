package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// ErrConsoleEnded means that the guest's console closed before the awaited
// line came: the guest stopped.
var ErrConsoleEnded = errors.New("the console ended")

// Console keeps what a guest wrote to its serial console.
type Console struct {
	mu      sync.Mutex
	lines   []string
	ended   bool
	changed chan struct{}
}

// NewConsole reads from r until it ends.
func NewConsole(r io.Reader) *Console {
	c := &Console{changed: make(chan struct{})}
	go c.read(r)
	return c
}

func (c *Console) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		c.mu.Lock()
		if line != "" {
			c.lines = append(c.lines, strings.TrimRight(line, "\r\n"))
		}
		c.ended = err != nil
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// snapshot gives the lines from the given one on, whether more can come, and
// a channel that closes when something changed.
func (c *Console) snapshot(from int) (lines []string, ended bool, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[from:len(c.lines):len(c.lines)], c.ended, c.changed
}

// WaitFor gives the first line, old or new, that contains one of the texts.
// It fails when the console ends or ctx does.
func (c *Console) WaitFor(ctx context.Context, texts ...string) (string, error) {
	next := 0
	for {
		lines, ended, changed := c.snapshot(next)
		for _, line := range lines {
			for _, text := range texts {
				if strings.Contains(line, text) {
					return line, nil
				}
			}
		}
		next += len(lines)
		if ended {
			return "", fmt.Errorf("waiting for %q: %w", texts, ErrConsoleEnded)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for %q: %w", texts, context.Cause(ctx))
		case <-changed:
		}
	}
}

// Text gives all that was written so far.
func (c *Console) Text() string {
	lines, _, _ := c.snapshot(0)
	return strings.Join(lines, "\n")
}

// Tail gives the last n lines.
func (c *Console) Tail(n int) string {
	lines, _, _ := c.snapshot(0)
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
