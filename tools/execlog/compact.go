package execlog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"github.com/kiln-build/kiln/tools/execlog/logpb"
)

// maxEntry is far above what an entry takes, and far below what the length of
// a foreign file's first entry usually comes to.
const maxEntry = 256 << 20

// readCompact reads a zstd stream of entries, each with its length before it.
func readCompact(log *Log, r io.Reader) error {
	decompressor, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("starting to decompress: %w", err)
	}
	defer decompressor.Close()
	in := bufio.NewReader(decompressor)
	entries := compactEntries{things: map[uint32]any{}}
	var buffer bytes.Buffer
	for entry := 1; ; entry++ {
		length, err := binary.ReadUvarint(in)
		if errors.Is(err, io.EOF) && entry > 1 {
			return nil
		} else if errors.Is(err, io.EOF) {
			return &entryError{entry, errors.New("it has no entries")}
		} else if err != nil {
			return compressed(entry, err)
		}
		if length > maxEntry {
			return &entryError{entry, fmt.Errorf("its length would be %d bytes", length)}
		}
		buffer.Reset()
		// Memory follows what is there, not what a length promises.
		if _, err := io.CopyN(&buffer, in, int64(length)); errors.Is(err, io.EOF) {
			return &entryError{entry, io.ErrUnexpectedEOF}
		} else if err != nil {
			return compressed(entry, err)
		}
		var e logpb.ExecLogEntry
		if err := proto.Unmarshal(buffer.Bytes(), &e); err != nil {
			return &entryError{entry, fmt.Errorf("it is not an entry of a log: %w", err)}
		}
		if (entry == 1) != (e.GetInvocation() != nil) {
			return &entryError{entry, errors.New("the first entry, and no other, must be the invocation")}
		}
		if err := entries.add(log, &e); err != nil {
			return &entryError{entry, err}
		}
	}
}

// compressed sorts out errors of the decompressor: broken content is the
// entry's, everything else is the stream's.
func compressed(entry int, err error) error {
	for _, broken := range []error{
		io.ErrUnexpectedEOF, zstd.ErrMagicMismatch, zstd.ErrReservedBlockType, zstd.ErrCompressedSizeTooBig, zstd.ErrWindowSizeTooSmall,
		zstd.ErrWindowSizeExceeded, zstd.ErrBlockTooSmall, zstd.ErrUnexpectedBlockSize, zstd.ErrCRCMismatch, zstd.ErrDecoderSizeExceeded,
		zstd.ErrFrameSizeExceeded, zstd.ErrFrameSizeMismatch,
	} {
		if errors.Is(err, broken) {
			return &entryError{entry, err}
		}
	}
	return err
}

// compactEntries are the entries that later ones may name.
type compactEntries struct {
	invocation *logpb.ExecLogEntry_Invocation
	things     map[uint32]any
}

// What a number can stand for, besides File.
type (
	directory struct {
		path  string
		files []File
	}
	inputSet struct {
		sets   []*inputSet
		inputs []any
	}
	symlinkSet struct {
		sets    []*symlinkSet
		entries map[string]any // nil is an empty file
	}
	runfilesTree struct {
		path                   string
		inputs                 *inputSet
		symlinks, rootSymlinks *symlinkSet
		emptyFiles             []string
		repoMapping            *logpb.ExecLogEntry_File
		legacyExternal         bool
	}
)

func (c *compactEntries) add(log *Log, e *logpb.ExecLogEntry) error {
	var thing any
	var err error
	switch e := e.GetType().(type) {
	case *logpb.ExecLogEntry_Invocation_:
		c.invocation = e.Invocation
		log.Invocation = e.Invocation.GetId()
		return nil
	case *logpb.ExecLogEntry_Spawn_:
		s, err := c.spawn(e.Spawn)
		if err != nil {
			return err
		}
		log.Spawns = append(log.Spawns, s)
		return nil
	case *logpb.ExecLogEntry_SymlinkAction_:
		a := e.SymlinkAction
		log.Symlinks = append(log.Symlinks, Symlink{
			Path: a.GetOutputPath(), Input: a.GetInputPath(), Target: a.GetTargetLabel(), Mnemonic: a.GetMnemonic(),
		})
		return nil
	case *logpb.ExecLogEntry_File_:
		thing = File{Path: e.File.GetPath(), Digest: digest(e.File.GetDigest())}
	case *logpb.ExecLogEntry_UnresolvedSymlink_:
		thing = File{Path: e.UnresolvedSymlink.GetPath(), Target: e.UnresolvedSymlink.GetTargetPath()}
	case *logpb.ExecLogEntry_Directory_:
		d := &directory{path: e.Directory.GetPath()}
		for _, f := range e.Directory.GetFiles() {
			d.files = append(d.files, File{Path: d.path + "/" + f.GetPath(), Digest: digest(f.GetDigest())})
		}
		thing = d
	case *logpb.ExecLogEntry_InputSet_:
		thing, err = c.inputSet(e.InputSet)
	case *logpb.ExecLogEntry_SymlinkEntrySet_:
		thing, err = c.symlinkSet(e.SymlinkEntrySet)
	case *logpb.ExecLogEntry_RunfilesTree_:
		thing, err = c.runfilesTree(e.RunfilesTree)
	default:
		return errors.New("it is of a kind that Bazel 7.7 does not write")
	}
	if err != nil {
		return err
	}
	if e.GetId() == 0 {
		return nil
	}
	if _, taken := c.things[e.GetId()]; taken {
		return fmt.Errorf("number %d is taken", e.GetId())
	}
	c.things[e.GetId()] = thing
	return nil
}

// named gives what a number stands for. T is what must be there.
func named[T any](c *compactEntries, id uint32) (T, error) {
	thing, ok := c.things[id].(T)
	if !ok {
		return thing, fmt.Errorf("it names number %d as a %T, but what came before it under that number is a %T", id, thing, c.things[id])
	}
	return thing, nil
}

// optional is named for numbers of which zero means nothing.
func optional[T any](c *compactEntries, id uint32) (T, error) {
	if id == 0 {
		var none T
		return none, nil
	}
	return named[T](c, id)
}

// input gives a File, a directory or a runfiles tree.
func (c *compactEntries) input(id uint32) (any, error) {
	switch thing := c.things[id].(type) {
	case File, *directory, *runfilesTree:
		return thing, nil
	default:
		return nil, fmt.Errorf("it names number %d as an input, but what came before it under that number is a %T", id, thing)
	}
}

func (c *compactEntries) inputSet(e *logpb.ExecLogEntry_InputSet) (*inputSet, error) {
	set := &inputSet{}
	for _, id := range e.GetTransitiveSetIds() {
		other, err := named[*inputSet](c, id)
		if err != nil {
			return nil, err
		}
		set.sets = append(set.sets, other)
	}
	for _, id := range e.GetInputIds() {
		input, err := c.input(id)
		if err != nil {
			return nil, err
		}
		set.inputs = append(set.inputs, input)
	}
	return set, nil
}

func (c *compactEntries) symlinkSet(e *logpb.ExecLogEntry_SymlinkEntrySet) (*symlinkSet, error) {
	set := &symlinkSet{entries: map[string]any{}}
	for _, id := range e.GetTransitiveSetIds() {
		other, err := named[*symlinkSet](c, id)
		if err != nil {
			return nil, err
		}
		set.sets = append(set.sets, other)
	}
	for path, id := range e.GetDirectEntries() {
		set.entries[path] = nil
		if id != 0 {
			target, err := c.input(id)
			if err != nil {
				return nil, err
			}
			set.entries[path] = target
		}
	}
	return set, nil
}

func (c *compactEntries) runfilesTree(e *logpb.ExecLogEntry_RunfilesTree) (_ *runfilesTree, err error) {
	tree := &runfilesTree{
		path:           e.GetPath(),
		emptyFiles:     e.GetEmptyFiles(),
		repoMapping:    e.GetRepoMappingManifest(),
		legacyExternal: e.GetLegacyExternalRunfiles(),
	}
	if tree.inputs, err = optional[*inputSet](c, e.GetInputSetId()); err != nil {
		return nil, err
	}
	if tree.symlinks, err = optional[*symlinkSet](c, e.GetSymlinksId()); err != nil {
		return nil, err
	}
	tree.rootSymlinks, err = optional[*symlinkSet](c, e.GetRootSymlinksId())
	return tree, err
}

func (c *compactEntries) spawn(e *logpb.ExecLogEntry_Spawn) (*Spawn, error) {
	s := newSpawn(e, e.GetArgs(), e.GetEnvVars())
	inputs, err := optional[*inputSet](c, e.GetInputSetId())
	if err != nil {
		return nil, err
	}
	tools, err := optional[*inputSet](c, e.GetToolSetId())
	if err != nil {
		return nil, err
	}
	s.inputs = func() []File { return c.expand(inputs, tools) }
	for _, o := range e.GetOutputs() {
		if path := o.GetInvalidOutputPath(); path != "" {
			s.Declared = append(s.Declared, path)
			continue
		}
		output, err := c.input(o.GetOutputId())
		if err != nil {
			return nil, err
		}
		switch output := output.(type) {
		case File:
			s.Declared = append(s.Declared, output.Path)
			s.Outputs = append(s.Outputs, output)
		case *directory:
			s.Declared = append(s.Declared, output.path)
			s.Outputs = append(s.Outputs, output.files...)
		default:
			return nil, fmt.Errorf("output number %d is a %T", o.GetOutputId(), output)
		}
	}
	slices.Sort(s.Declared)
	sortFiles(s.Outputs)
	return s, nil
}

// expand lists a set's files by path.
func (c *compactEntries) expand(inputs, tools *inputSet) []File {
	isTool := map[string]bool{}
	for f := range c.files(tools) {
		isTool[f.Path] = true
	}
	byPath := map[string]File{}
	for f := range c.files(inputs) {
		f.Tool = isTool[f.Path]
		byPath[f.Path] = f
	}
	files := make([]File, 0, len(byPath))
	for _, f := range byPath {
		files = append(files, f)
	}
	sortFiles(files)
	return files
}

// files walks over a set, the sets in it first, each once.
func (c *compactEntries) files(set *inputSet) iter.Seq[File] {
	return func(yield func(File) bool) {
		seen := map[*inputSet]bool{}
		var walk func(*inputSet) bool
		walk = func(set *inputSet) bool {
			if set == nil || seen[set] {
				return true
			}
			seen[set] = true
			for _, other := range set.sets {
				if !walk(other) {
					return false
				}
			}
			for _, input := range set.inputs {
				for _, f := range c.filesOf(input) {
					if !yield(f) {
						return false
					}
				}
			}
			return true
		}
		walk(set)
	}
}

func (c *compactEntries) filesOf(input any) []File {
	switch input := input.(type) {
	case File:
		return []File{input}
	case *directory:
		return input.files
	case *runfilesTree:
		return c.runfiles(input)
	}
	return nil
}

// runfiles lists what is in a runfiles tree. What comes later wins where two
// want the same path.
func (c *compactEntries) runfiles(tree *runfilesTree) []File {
	main := c.invocation.GetWorkspaceRunfilesDirectory()
	hasMain := false
	var paths []string
	files := map[string]File{}
	put := func(path string, f File) {
		f.Path = tree.path + "/" + path
		if _, there := files[path]; !there {
			paths = append(paths, path)
		}
		files[path] = f
		hasMain = hasMain || strings.HasPrefix(path, main+"/")
	}
	// A symlink to a directory stands for the files in it.
	link := func(path string, target any) {
		switch target := target.(type) {
		case nil:
			put(path, File{})
		case File:
			put(path, target)
		case *directory:
			for _, f := range target.files {
				put(path+strings.TrimPrefix(f.Path, target.path), f)
			}
		}
	}
	inMain := func(path string) string {
		if outside, ok := strings.CutPrefix(path, "../"); ok {
			return outside
		}
		return main + "/" + path
	}

	tree.symlinks.walk(map[*symlinkSet]bool{}, func(path string, target any) {
		link(inMain(path), target)
		if tree.legacyExternal && strings.HasPrefix(path, "../") {
			link(main+"/external/"+strings.TrimPrefix(path, "../"), target)
		}
	})
	for f := range c.files(tree.inputs) {
		repository, path := runfilesPath(f.Path, c.invocation.GetSiblingRepositoryLayout())
		switch {
		case repository == "":
			put(main+"/"+path, f)
		default:
			put(repository+"/"+path, f)
			if tree.legacyExternal {
				put(main+"/external/"+repository+"/"+path, f)
			}
		}
	}
	for _, path := range tree.emptyFiles {
		put(inMain(path), File{})
	}
	tree.rootSymlinks.walk(map[*symlinkSet]bool{}, link)
	if tree.repoMapping != nil {
		put("_repo_mapping", File{Digest: digest(tree.repoMapping.GetDigest())})
	}
	if !tree.legacyExternal && !hasMain {
		put(main+"/.runfile", File{})
	}
	list := make([]File, 0, len(paths))
	for _, path := range paths {
		list = append(list, files[path])
	}
	return list
}

// walk visits the sets in a set first, each once, and a set's own entries in
// the order of their paths.
func (s *symlinkSet) walk(seen map[*symlinkSet]bool, visit func(path string, target any)) {
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	for _, other := range s.sets {
		other.walk(seen, visit)
	}
	paths := make([]string, 0, len(s.entries))
	for path := range s.entries {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		visit(path, s.entries[path])
	}
}

var (
	outputDirectory        = regexp.MustCompile(`^(?:bazel|blaze)-out/[^/]+/[^/]+/`)
	siblingOutputDirectory = regexp.MustCompile(`^(?:bazel|blaze)-out/(?:([^/]+)/)?[^/]+-[^/]+/[^/]+/`)
)

// runfilesPath splits the path of a file in the execution root, source or
// output, into its repository, empty for the main one, and the rest.
func runfilesPath(path string, siblings bool) (repository, rest string) {
	if siblings {
		if m := siblingOutputDirectory.FindStringSubmatch(path); m != nil {
			return m[1], path[len(m[0]):]
		}
	}
	path = outputDirectory.ReplaceAllString(path, "")
	for _, outside := range []string{"external/", "../"} {
		if inside, ok := strings.CutPrefix(path, outside); ok {
			repository, rest, _ = strings.Cut(inside, "/")
			return repository, rest
		}
	}
	return "", path
}
