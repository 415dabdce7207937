package execlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kiln-build/kiln/tools/execlog/logpb"
)

// readJSON reads one JSON object a spawn, with nothing but space in between.
func readJSON(log *Log, r io.Reader) error {
	decoder := json.NewDecoder(r)
	known := interner{}
	// Bazel's format may have grown fields that do not matter here.
	lenient := protojson.UnmarshalOptions{DiscardUnknown: true}
	for entry := 1; ; entry++ {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		var syntax *json.SyntaxError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax):
			return &entryError{entry, err}
		case err != nil:
			return err
		}
		var e logpb.SpawnExec
		if err := lenient.Unmarshal(raw, &e); err != nil {
			return &entryError{entry, fmt.Errorf("it is not a spawn: %w", err)}
		}
		if e.GetMnemonic() == "" {
			return &entryError{entry, errors.New("it has no mnemonic, so it is not a spawn")}
		}
		s := newSpawn(&e, e.GetCommandArgs(), e.GetEnvironmentVariables())
		inputs := known.files(e.GetInputs())
		s.inputs = func() []File { return slices.Clone(inputs) }
		s.Outputs = known.files(e.GetActualOutputs())
		s.Declared = e.GetListedOutputs()
		slices.Sort(s.Declared)
		log.Spawns = append(log.Spawns, s)
	}
}

// An interner keeps one copy of strings that a log repeats for every spawn.
type interner map[string]string

func (in interner) get(s string) string {
	if known, ok := in[s]; ok {
		return known
	}
	in[s] = s
	return s
}

func (in interner) files(from []*logpb.SpawnExec_File) []File {
	files := make([]File, 0, len(from))
	for _, f := range from {
		d := digest(f.GetDigest())
		d.Hash = in.get(d.Hash)
		files = append(files, File{Path: in.get(f.GetPath()), Digest: d, Tool: f.GetIsTool(), Target: f.GetSymlinkTargetPath()})
	}
	sortFiles(files)
	return files
}
