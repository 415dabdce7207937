package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Completed is one execution that a worker really did.
type Completed struct {
	// Digest is the action's: its hash alone, or with the size behind a
	// slash or a dash.
	Digest string    `json:"digest"`
	Worker string    `json:"worker"`
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
}

var digestRE = regexp.MustCompile(`^([0-9a-f]{32,128})(?:[/-][0-9]+)?$`)

func (c Completed) hash() string { return digestRE.FindStringSubmatch(c.Digest)[1] }

// ReadCompleted reads a workers' list: one JSON object an execution.
func ReadCompleted(path string) ([]Completed, error) {
	f, err := open("the workers' list", path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list := []Completed{}
	for decoder := json.NewDecoder(f); ; {
		var c Completed
		if err := decoder.Decode(&c); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s, entry %d: %w", path, len(list)+1, err))
		}
		c.Digest = strings.TrimPrefix(c.Digest, "sha256:")
		if !digestRE.MatchString(c.Digest) {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s, entry %d: digest %q is not hexadecimal digits, with or without /SIZE", path, len(list)+1, c.Digest))
		}
		list = append(list, c)
	}
}

// compare holds the remote executions that the logs show against those of
// the workers. What the workers executed besides components is not looked at.
func (r *Report) compare(list []Completed) {
	byHash := map[string][]Completed{}
	for _, c := range list {
		byHash[c.hash()] = append(byHash[c.hash()], c)
	}
	for _, c := range r.Components {
		logs := 0
		for _, e := range c.Executions {
			if e.remote {
				logs++
			}
		}
		workers := byHash[c.Key]
		r.Totals.WorkerExecutions += len(workers)
		if logs == len(workers) {
			continue
		}
		d := Disagreement{Target: c.Target, Key: c.Key, Logs: logs, Workers: len(workers), Where: []string{}}
		for _, w := range workers {
			d.Where = append(d.Where, fmt.Sprintf("worker %s, at %s for %.1f s", w.Worker, when(w.Start), w.End.Sub(w.Start).Seconds()))
		}
		r.Disagreements = append(r.Disagreements, d)
	}
}
