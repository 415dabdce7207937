package nested

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// OutputFiles gives the files of the default output groups, from what
// --build_event_json_file wrote; see build_event_stream.proto.
func OutputFiles(events string) ([]string, error) {
	f, err := os.Open(events)
	if err != nil {
		return nil, fmt.Errorf("reading what was built: %w", err)
	}
	defer f.Close()
	var files []string
	for decoder := json.NewDecoder(f); ; {
		var event struct {
			NamedSetOfFiles struct {
				Files []struct {
					URI string `json:"uri"`
				} `json:"files"`
			} `json:"namedSetOfFiles"`
		}
		if err := decoder.Decode(&event); err == io.EOF {
			return files, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading what was built: %w", err)
		}
		for _, file := range event.NamedSetOfFiles.Files {
			files = append(files, strings.TrimPrefix(file.URI, "file://"))
		}
	}
}
