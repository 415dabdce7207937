// Package cached gives what a cache still knows of an action as something that a
// build can be compared with: its command, its environment, the tree of its inputs.
//
// A cache that actions were executed through has all of it, as blobs that the
// action's digest leads to. One that only results were stored in may lack the
// inputs.
package cached

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/client"
	"github.com/bazelbuild/remote-apis-sdks/go/pkg/digest"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Cache is what is read from: a client of remote-apis-sdks.
type Cache interface {
	ReadProto(ctx context.Context, d digest.Digest, m proto.Message) (*client.MovedBytesMetadata, error)
	GetActionResult(ctx context.Context, req *repb.GetActionResultRequest) (*repb.ActionResult, error)
}

// Baseline is a set of actions from a cache.
type Baseline struct{ actions []*execlog.Spawn }

// Read reads actions by their keys, HASH/SIZE each, as execution logs have them.
func Read(ctx context.Context, cache Cache, instance string, keys []string) (*Baseline, error) {
	b := &Baseline{}
	for _, key := range keys {
		d, err := digest.NewFromString(key)
		if err != nil {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%q is no key of an action: give HASH/SIZE: %w", key, err))
		}
		s, err := read(ctx, cache, instance, d)
		if status.Code(err) == codes.NotFound {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("the cache does not have all of action %s: %w: it was never executed through this cache, or was dropped", key, err))
		} else if err != nil {
			return nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("reading action %s from the cache: %w", key, err))
		}
		b.actions = append(b.actions, s)
	}
	return b, nil
}

func read(ctx context.Context, cache Cache, instance string, key digest.Digest) (*execlog.Spawn, error) {
	var action repb.Action
	if _, err := cache.ReadProto(ctx, key, &action); err != nil {
		return nil, err
	}
	var command repb.Command
	if err := readProto(ctx, cache, action.GetCommandDigest(), &command); err != nil {
		return nil, fmt.Errorf("its command: %w", err)
	}
	var inputs []execlog.File
	if err := walk(ctx, cache, "", action.GetInputRootDigest(), &inputs); err != nil {
		return nil, fmt.Errorf("its inputs: %w", err)
	}
	slices.SortFunc(inputs, func(a, b execlog.File) int { return strings.Compare(a.Path, b.Path) })
	s := &execlog.Spawn{
		Digest:   execlog.Digest{Hash: key.Hash, Size: key.Size},
		Args:     command.GetArguments(),
		Timeout:  action.GetTimeout().AsDuration(),
		Declared: slices.Clone(command.GetOutputPaths()),
	}
	if len(s.Declared) == 0 {
		s.Declared = slices.Concat(command.GetOutputFiles(), command.GetOutputDirectories())
	}
	slices.Sort(s.Declared)
	for _, v := range command.GetEnvironmentVariables() {
		s.Environment = append(s.Environment, execlog.Variable{Name: v.GetName(), Value: v.GetValue()})
	}
	platform := action.GetPlatform()
	if platform == nil {
		platform = command.GetPlatform()
	}
	for _, p := range platform.GetProperties() {
		s.Platform = append(s.Platform, execlog.Variable{Name: p.GetName(), Value: p.GetValue()})
	}
	// What it made is good to know, and not needed.
	result, err := cache.GetActionResult(ctx, &repb.GetActionResultRequest{InstanceName: instance, ActionDigest: key.ToProto()})
	if err != nil && status.Code(err) != codes.NotFound {
		return nil, err
	}
	for _, f := range result.GetOutputFiles() {
		s.Outputs = append(s.Outputs, execlog.File{Path: f.GetPath(), Digest: toDigest(f.GetDigest())})
	}
	slices.SortFunc(s.Outputs, func(a, b execlog.File) int { return strings.Compare(a.Path, b.Path) })
	s.SetInputs(inputs)
	return s, nil
}

func readProto(ctx context.Context, cache Cache, d *repb.Digest, m proto.Message) error {
	key, err := digest.NewFromProto(d)
	if err != nil {
		return err
	}
	_, err = cache.ReadProto(ctx, key, m)
	return err
}

// walk lists the files of a directory and of those in it.
func walk(ctx context.Context, cache Cache, at string, d *repb.Digest, files *[]execlog.File) error {
	var directory repb.Directory
	if err := readProto(ctx, cache, d, &directory); err != nil {
		return err
	}
	for _, f := range directory.GetFiles() {
		*files = append(*files, execlog.File{Path: path.Join(at, f.GetName()), Digest: toDigest(f.GetDigest())})
	}
	for _, l := range directory.GetSymlinks() {
		*files = append(*files, execlog.File{Path: path.Join(at, l.GetName()), Target: l.GetTarget()})
	}
	for _, sub := range directory.GetDirectories() {
		if err := walk(ctx, cache, path.Join(at, sub.GetName()), sub.GetDigest(), files); err != nil {
			return err
		}
	}
	return nil
}

// toDigest writes an empty file as logs do: without a digest.
func toDigest(d *repb.Digest) execlog.Digest {
	if d.GetSizeBytes() == 0 {
		return execlog.Digest{}
	}
	return execlog.Digest{Hash: d.GetHash(), Size: d.GetSizeBytes()}
}

// Counterpart finds the action with the outputs of s. What a cache does not know of
// it is taken from s: its target, its mnemonic, and which inputs are tools.
func (b *Baseline) Counterpart(s *execlog.Spawn) *execlog.Spawn {
	for _, a := range b.actions {
		if !slices.Equal(a.Declared, s.Declared) {
			continue
		}
		tools := map[string]bool{}
		for _, f := range s.Inputs() {
			tools[f.Path] = f.Tool
		}
		inputs := slices.Clone(a.Inputs())
		for i := range inputs {
			inputs[i].Tool = tools[inputs[i].Path]
		}
		found := *a
		found.Target, found.Mnemonic = s.Target, s.Mnemonic
		found.SetInputs(inputs)
		return &found
	}
	return nil
}
