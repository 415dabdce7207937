package command

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/tools/humanize"
)

// progress tells on a terminal or in a log what takes long, one line at a
// time.
type progress struct {
	w io.Writer

	mu   sync.Mutex
	last map[string]time.Time
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, last: map[string]time.Time{}}
}

func (p *progress) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "kiln: "+format+"\n", args...)
}

// every is how often one upload is heard of.
const every = 2 * time.Second

func (p *progress) event(e publish.Event) {
	if e.Reused || e.Component == "config" {
		return
	}
	now := time.Now()
	p.mu.Lock()
	last, started := p.last[e.Component]
	silent := started && !e.Done && now.Sub(last) < every
	if !silent {
		p.last[e.Component] = now
	}
	p.mu.Unlock()
	switch {
	case silent:
	case e.Done:
		p.printf("uploaded %s, %s", e.Component, humanize.Bytes(e.Size))
	case e.Sent > 0:
		p.printf("uploading %s, %s of %s", e.Component, humanize.Bytes(e.Sent), humanize.Bytes(e.Size))
	default:
		p.printf("uploading %s, %s", e.Component, humanize.Bytes(e.Size))
	}
}
