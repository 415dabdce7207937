package nested

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// event is what this package reads of a build event; see build_event_stream.proto.
type event struct {
	Started *struct {
		StartTime time.Time `json:"startTime"`
	} `json:"started"`
	NamedSetOfFiles struct {
		Files []struct {
			URI string `json:"uri"`
		} `json:"files"`
	} `json:"namedSetOfFiles"`
}

// readEvents reads all of what --build_event_json_file wrote.
func readEvents(name string) ([]event, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the events of a build: %w", err)
	}
	defer f.Close()
	var events []event
	for decoder := json.NewDecoder(f); ; {
		var e event
		if err := decoder.Decode(&e); err == io.EOF {
			return events, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading the events of a build: %w", err)
		}
		events = append(events, e)
	}
}

// OutputFiles gives the files of the default output groups, from what
// --build_event_json_file wrote.
func OutputFiles(events string) ([]string, error) {
	all, err := readEvents(events)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range all {
		for _, file := range e.NamedSetOfFiles.Files {
			files = append(files, strings.TrimPrefix(file.URI, "file://"))
		}
	}
	return files, nil
}

// Started gives when a build began by the clock of Bazel's server, from what
// --build_event_json_file wrote.
func Started(events string) (time.Time, error) {
	all, err := readEvents(events)
	if err != nil {
		return time.Time{}, err
	}
	for _, e := range all {
		if e.Started != nil {
			return e.Started.StartTime, nil
		}
	}
	return time.Time{}, errors.New("reading the events of a build: none says when it started")
}
