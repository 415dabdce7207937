package cached_test

import (
	"testing"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/digest"
	"github.com/bazelbuild/remote-apis-sdks/go/pkg/fakes"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/kiln-build/kiln/ci/explain/cached"
	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// store puts an action into a cache: a script and a tool make a layer.
func store(t *testing.T, env *fakes.TestEnv) (key digest.Digest, script, tool, layer digest.Digest) {
	t.Helper()
	cas := env.Server.CAS
	put := func(m proto.Message) *repb.Digest {
		blob, err := proto.Marshal(m)
		require.NoError(t, err)
		return cas.Put(blob).ToProto()
	}
	script, tool, layer = cas.Put([]byte("make")), cas.Put([]byte("a tool")), cas.Put([]byte("a layer"))
	stack := put(&repb.Directory{Files: []*repb.FileNode{{Name: "build.sh", Digest: script.ToProto()}, {Name: "empty", Digest: digest.Empty.ToProto()}}})
	root := put(&repb.Directory{
		Directories: []*repb.DirectoryNode{{Name: "stack", Digest: stack}},
		Files:       []*repb.FileNode{{Name: "tool", Digest: tool.ToProto(), IsExecutable: true}},
		Symlinks:    []*repb.SymlinkNode{{Name: "link", Target: "stack/build.sh"}},
	})
	command := put(&repb.Command{
		Arguments:            []string{"tool", "stack/build.sh"},
		EnvironmentVariables: []*repb.Command_EnvironmentVariable{{Name: "LANG", Value: "C"}},
		OutputPaths:          []string{"layer"},
	})
	action := &repb.Action{CommandDigest: command, InputRootDigest: root, Platform: &repb.Platform{Properties: []*repb.Platform_Property{{Name: "kind", Value: "plain"}}}}
	key = digest.TestNewFromMessage(action)
	put(action)
	env.Server.ActionCache.Put(key, &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "layer", Digest: layer.ToProto()}}})
	return key, script, tool, layer
}

func to(d digest.Digest) execlog.Digest { return execlog.Digest{Hash: d.Hash, Size: d.Size} }

func TestRead(t *testing.T) {
	env, stop := fakes.NewTestEnv(t)
	defer stop()
	key, script, tool, layer := store(t, env)
	b, err := cached.Read(t.Context(), env.Client.GrpcClient, "instance", []string{key.String()})
	require.NoError(t, err)

	now := &execlog.Spawn{Target: "//stack:thing", Mnemonic: "KataComponent", Declared: []string{"layer"}}
	now.SetInputs([]execlog.File{{Path: "stack/build.sh"}, {Path: "tool", Tool: true}})
	got := b.Counterpart(now)
	require.NotNil(t, got)
	require.Equal(t, []execlog.File{
		{Path: "link", Target: "stack/build.sh"},
		{Path: "stack/build.sh", Digest: to(script)},
		{Path: "stack/empty"},
		{Path: "tool", Digest: to(tool), Tool: true},
	}, got.Inputs())
	require.Equal(t, "//stack:thing", got.Target)
	require.Equal(t, to(key), got.Digest)
	require.Equal(t, []string{"tool", "stack/build.sh"}, got.Args)
	require.Equal(t, []execlog.Variable{{Name: "LANG", Value: "C"}}, got.Environment)
	require.Equal(t, []execlog.Variable{{Name: "kind", Value: "plain"}}, got.Platform)
	require.Equal(t, []execlog.File{{Path: "layer", Digest: to(layer)}}, got.Outputs)

	require.Nil(t, b.Counterpart(&execlog.Spawn{Declared: []string{"another"}}))
}

func TestReadRefuses(t *testing.T) {
	env, stop := fakes.NewTestEnv(t)
	defer stop()
	_, err := cached.Read(t.Context(), env.Client.GrpcClient, "instance", []string{"abc"})
	require.ErrorContains(t, err, "give HASH/SIZE")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))

	absent := digest.NewFromBlob([]byte("absent"))
	_, err = cached.Read(t.Context(), env.Client.GrpcClient, "instance", []string{absent.String()})
	require.ErrorContains(t, err, "the cache does not have all of action "+absent.String())
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}
