//go:build payload

package contract_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/stack/runtimeconfig/check"
	"github.com/kiln-build/kiln/stack/runtimeconfig/configuration"
	"github.com/kiln-build/kiln/tests/suite/boot"
	"github.com/kiln-build/kiln/tests/suite/contract"
	"github.com/kiln-build/kiln/tests/suite/payloadtest"
	"github.com/kiln-build/kiln/tests/suite/testtools"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/layer"
)

// guestVariable says what the table of runtime classes has as the guest: an "image", an
// "initrd" or, all in one with the kernel, a "boot-image", which the payload installs on
// the node, or that it is "elsewhere".
const guestVariable = "KILN_GUEST"

// archVariable is the payload's architecture by Go's name, and hypervisorVariable the
// name of the hypervisor for it. If it is another than this machine's, emulatorVariable is
// a root (.tar.zst) with what runs programs for it, and emulatorNameVariable its name.
const (
	archVariable         = "KILN_ARCH"
	hypervisorVariable   = "KILN_HYPERVISOR"
	emulatorVariable     = "KILN_EMULATOR"
	emulatorNameVariable = "KILN_EMULATOR_NAME"
)

func arch(t *testing.T) string       { return variable(t, archVariable) }
func hypervisor(t *testing.T) string { return variable(t, hypervisorVariable) }

// variable gives what tests/def.bzl sets for every test.
func variable(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	require.NotEmpty(t, value, name)
	return value
}

// emulator gives the words before a command that runs a program of the payload.
func emulator(t *testing.T) []string {
	t.Helper()
	if arch(t) == runtime.GOARCH {
		return nil
	}
	root, err := runfiles.Rlocation(variable(t, emulatorVariable))
	require.NoError(t, err, emulatorVariable)
	tools, err := testtools.Unpack(root, t.TempDir())
	require.NoError(t, err)
	program, err := tools.File("usr/bin/" + variable(t, emulatorNameVariable))
	require.NoError(t, err)
	return []string{program}
}

// guest tells what the payload must bring as a guest.
func guest(t *testing.T) string {
	t.Helper()
	kind := os.Getenv(guestVariable)
	require.Contains(t, []string{"boot-image", "elsewhere", "image", "initrd"}, kind, guestVariable)
	return kind
}

// firmwareVariable is a JSON object from runtime class to the kind of firmware that
// the table says it starts with.
const firmwareVariable = "KILN_FIRMWARE"

// guestOnNode tells whether the payload must bring a guest, and a hypervisor.
func guestOnNode(t *testing.T) bool {
	t.Helper()
	return guest(t) != "elsewhere"
}

// TestContract pulls the payload once; every part looks at what was pulled.
func TestContract(t *testing.T) {
	p := payloadtest.Pull(t)
	parts := map[string]func(*testing.T, *payloadtest.Payload){
		"documents":                         documents,
		"layers hold what metadata says":    layers,
		"the tree holds what metadata says": tree,
		"layout":                            layout,
		"configurations":                    configurations,
		"programs need nothing of the host": programs,
		"versions agree":                    versions,
		"install and cleanup":               installAndCleanup,
	}
	switch guest(t) {
	case "image":
		parts["the guest image is the measured one"] = guestImage
	case "elsewhere":
		parts["there is no guest"] = noGuest
	}
	for name, part := range parts {
		t.Run(name, func(t *testing.T) { part(t, p) })
	}
}

// documents checks that receipt, index, manifest, config and metadata tell
// the same story.
func documents(t *testing.T, p *payloadtest.Payload) {
	require.Len(t, p.Index.Manifests, 1)
	require.Equal(t, "linux/"+arch(t), p.Index.Manifests[0].Platform.String())
	require.Equal(t, arch(t), p.Config.Architecture)
	require.Equal(t, []string{image.Entrypoint}, p.Config.Config.Entrypoint)
	require.Equal(t, int64(0), p.Config.Created.Unix(), "the config has a build's date")

	labels := p.Config.Config.Labels
	require.Equal(t, labels, p.Index.Annotations)
	require.Equal(t, p.Receipt.Platform, labels[image.LabelPlatform])
	require.Equal(t, p.Receipt.Agent, labels[image.LabelAgent])
	require.Equal(t, p.Receipt.Inputs, labels[image.LabelInputs])
	require.NotContains(t, labels, "org.opencontainers.image.revision", "the payload depends on a commit")

	require.Len(t, p.Manifest.Layers, len(p.Components))
	require.Len(t, p.Receipt.Components, len(p.Components))
	for i, c := range p.Components {
		require.Equal(t, c.Layer.Digest, p.Manifest.Layers[i].Digest.String(), c.Name)
		require.Equal(t, c.Layer.Size, p.Manifest.Layers[i].Size, c.Name)
		require.Equal(t, c.Layer.MediaType, string(p.Manifest.Layers[i].MediaType), c.Name)
		require.Equal(t, c.Layer.DiffID, p.Config.RootFS.DiffIDs[i].String(), c.Name)
		require.Equal(t, c.Version, labels[image.LabelVersionPrefix+c.Name])
		require.Equal(t, c.Layer.Digest, p.Receipt.Components[i].Digest, c.Name)
		require.Equal(t, c.Version, p.Receipt.Components[i].Version, c.Name)
	}
}

// layers compares every entry of every layer as it was pulled with the
// component's metadata, and refuses what a payload must not have.
func layers(t *testing.T, p *payloadtest.Payload) {
	for i, c := range p.Components {
		t.Run(c.Name, func(t *testing.T) {
			rc, err := p.Layers[i].Compressed()
			require.NoError(t, err)
			defer rc.Close()
			headers, err := layer.List(t.Context(), rc)
			require.NoError(t, err)
			var got []metadata.File
			for _, h := range headers {
				name := strings.TrimSuffix(h.Name, "/")
				f := metadata.File{Path: name, Mode: fmt.Sprintf("%04o", h.Mode)}
				switch h.FileInfo().Mode().Type() {
				case 0:
					f.Type, f.Size = metadata.TypeFile, h.Size
				case fs.ModeDir:
					f.Type = metadata.TypeDir
				case fs.ModeSymlink:
					f.Type, f.Target = metadata.TypeSymlink, h.Linkname
				default:
					require.Fail(t, "neither file, directory nor symlink", name)
				}
				got = append(got, f)
				require.Zero(t, h.Uid, name)
				require.Zero(t, h.Gid, name)
				require.Empty(t, h.Uname, name)
				require.Empty(t, h.Gname, name)
				require.Zero(t, h.ModTime.Unix(), name)
				require.Zero(t, h.Mode&^0o777, "%s has mode %04o", name, h.Mode)
				if f.Type != metadata.TypeSymlink {
					require.Zero(t, h.Mode&0o022, "%s may be written by others: mode %04o", name, h.Mode)
				}
				for key := range h.PAXRecords {
					require.NotContains(t, key, "xattr", name)
				}
			}
			want := slices.Clone(c.Files)
			for i := range want {
				// What a file holds is compared in the tree.
				want[i].SHA256 = ""
			}
			require.Equal(t, want, got)
		})
	}
}

// tree compares the unpacked payload with all metadata: content of files,
// and nothing more than what a component lists.
func tree(t *testing.T, p *payloadtest.Payload) {
	want := map[string]metadata.File{}
	for _, c := range p.Components {
		for _, f := range c.Files {
			want[f.Path] = f
		}
	}
	require.NoError(t, filepath.WalkDir(p.Root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == p.Root {
			return err
		}
		name, err := filepath.Rel(p.Root, file)
		if err != nil {
			return err
		}
		f, ok := want[name]
		require.True(t, ok, "%s is in no component's list", name)
		delete(want, name)
		switch f.Type {
		case metadata.TypeFile:
			require.True(t, d.Type().IsRegular(), name)
			in, err := os.Open(file)
			if err != nil {
				return err
			}
			defer in.Close()
			sum := sha256.New()
			if _, err := io.Copy(sum, in); err != nil {
				return err
			}
			require.Equal(t, f.SHA256, hex.EncodeToString(sum.Sum(nil)), name)
		case metadata.TypeDir:
			require.True(t, d.IsDir(), name)
		case metadata.TypeSymlink:
			target, err := os.Readlink(file)
			require.NoError(t, err)
			require.Equal(t, f.Target, target, name)
			if !path.IsAbs(target) {
				require.FileExists(t, filepath.Join(filepath.Dir(file), target), "%s dangles", name)
			}
		}
		return nil
	}))
	require.Empty(t, want, "listed and not there")
}

// layout checks that a payload has artefacts and the installer, and nothing
// anywhere else.
func layout(t *testing.T, p *payloadtest.Payload) {
	for _, c := range p.Components {
		for _, f := range c.Files {
			if f.Type == metadata.TypeDir {
				continue
			}
			if c.Name == "kata-deploy" {
				require.Equal(t, strings.TrimPrefix(image.Entrypoint, "/"), f.Path)
				continue
			}
			require.True(t, strings.HasPrefix(f.Path, image.ArtifactRoot+check.Prefix+"/"), "%s of %s is no artefact", f.Path, c.Name)
		}
	}
}

// configurationOf reads the configuration of a runtime class from the payload.
func configurationOf(t *testing.T, p *payloadtest.Payload, class string) (file string, content []byte) {
	t.Helper()
	file = filepath.Join(p.Dir, "share/defaults/kata-containers", "configuration-"+class+".toml")
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	return file, content
}

func runtimeClasses(t *testing.T, p *payloadtest.Payload) []string {
	t.Helper()
	classes := p.Config.Config.Labels[image.LabelRuntimeClasses]
	require.NotEmpty(t, classes)
	return strings.Split(classes, ",")
}

// configurations checks that whatever a configuration names is there and is
// what it should be.
func configurations(t *testing.T, p *payloadtest.Payload) {
	kinds := map[string]string{}
	require.NoError(t, json.Unmarshal([]byte(os.Getenv(firmwareVariable)), &kinds), firmwareVariable)
	for _, class := range runtimeClasses(t, p) {
		t.Run(class, func(t *testing.T) {
			_, content := configurationOf(t, p, class)
			paths, err := check.Paths(content)
			require.NoError(t, err)
			seen := map[string]bool{}
			for _, named := range paths {
				file, err := boot.Locate(p.Dir, named.Path)
				require.NoError(t, err, "line %d: %s", named.Line, named.Key)
				key := named.Key[strings.LastIndex(named.Key, ".")+1:]
				seen[key] = true
				switch key {
				case "path", "virtio_fs_daemon":
					isELF, err := contract.CheckProgram(file, arch(t))
					require.NoError(t, err)
					require.True(t, isELF, "%s is no program", named.Path)
				case "kernel":
					require.NoError(t, contract.CheckKernel(file, arch(t)))
					require.Equal(t, guest(t) == "boot-image", strings.HasSuffix(named.Path, "-se.img"), "whether the kernel is a boot image")
				case "initrd":
					require.NoError(t, contract.CheckInitrd(file))
				case "firmware":
					require.NoError(t, contract.CheckFirmware(file, kinds[class]))
				case "image":
					disk, err := os.Open(file)
					require.NoError(t, err)
					defer disk.Close()
					partitions, err := boot.Partitions(disk)
					require.NoError(t, err)
					require.Len(t, partitions, 2, "root and hash tree")
				}
			}
			for key, want := range map[string]bool{
				"path": guestOnNode(t), "kernel": guestOnNode(t), "image": guest(t) == "image", "initrd": guest(t) == "initrd",
			} {
				require.Equal(t, want, seen[key], "whether the configuration names a %s", key)
			}
			require.Equal(t, kinds[class] != "", seen["firmware"], "whether the configuration names a firmware")
			default_, err := os.Readlink(filepath.Join(p.Dir, "share/defaults/kata-containers/configuration.toml"))
			require.NoError(t, err)
			require.Equal(t, "configuration-"+class+".toml", default_)
		})
	}
}

// createRE finds the verity device in kernel parameters.
var createRE = regexp.MustCompile(`dm-mod\.create="[^"]* verity 1 /dev/vda1 /dev/vda2 (\d+) (\d+) (\d+) 0 sha256 ([0-9a-f]{64}) ([0-9a-f]*)"`)

// guestImage computes the hash tree of each guest's root once more and compares it
// with the tree on disk, with the file beside the image, and with what the
// configuration makes the kernel check.
func guestImage(t *testing.T, p *payloadtest.Payload) {
	for _, class := range runtimeClasses(t, p) {
		t.Run(class, func(t *testing.T) { guestImageOf(t, p, class) })
	}
}

func guestImageOf(t *testing.T, p *payloadtest.Payload, class string) {
	_, content := configurationOf(t, p, class)
	var document struct {
		Hypervisor map[string]struct {
			Image        string `toml:"image"`
			KernelParams string `toml:"kernel_params"`
		} `toml:"hypervisor"`
	}
	_, err := toml.Decode(string(content), &document)
	require.NoError(t, err)
	require.Len(t, document.Hypervisor, 1)
	var image, params string
	for _, h := range document.Hypervisor {
		image, params = h.Image, h.KernelParams
	}

	// kata-containers.img is the variant "base", kata-containers-x.img the variant x.
	variant, ok := strings.CutPrefix(strings.TrimSuffix(path.Base(image), ".img"), "kata-containers")
	require.True(t, ok, "the image of %s is %s", class, image)
	if variant = strings.TrimPrefix(variant, "-"); variant == "" {
		variant = "base"
	}
	name := "root_hash_" + variant + ".txt"
	line, err := os.ReadFile(filepath.Join(p.Dir, "share/kata-containers", name))
	require.NoError(t, err)
	v, err := configuration.ParseVerity(name, string(line))
	require.NoError(t, err)
	salt, err := hex.DecodeString(v.Salt)
	require.NoError(t, err)

	file, err := boot.Locate(p.Dir, image)
	require.NoError(t, err)
	disk, err := os.Open(file)
	require.NoError(t, err)
	defer disk.Close()
	partitions, err := boot.Partitions(disk)
	require.NoError(t, err)
	require.Len(t, partitions, 2)
	root := io.NewSectionReader(disk, partitions[0].Start, partitions[0].Size)
	computed, err := contract.ComputeHashTree(root, salt, v.DataBlocks, int(v.DataBlockSize), int(v.HashBlockSize))
	require.NoError(t, err)
	require.Equal(t, v.RootHash, computed.RootHash, "%s is not of this image", name)
	stored := make([]byte, len(computed.Blocks))
	_, err = disk.ReadAt(stored, partitions[1].Start)
	require.NoError(t, err)
	require.True(t, bytes.Equal(computed.Blocks, stored), "the hash tree in the image is not of its root")

	m := createRE.FindStringSubmatch(params)
	require.NotNil(t, m, "kernel_params of %s make no verity device: %s", class, params)
	require.Equal(t, []string{
		strconv.FormatUint(v.DataBlockSize, 10), strconv.FormatUint(v.HashBlockSize, 10), strconv.FormatUint(v.DataBlocks, 10),
		v.RootHash, v.Salt,
	}, m[1:])
	require.Contains(t, params, "root=/dev/dm-0")
}

// noGuest checks that nothing of a guest is installed where none is started.
func noGuest(t *testing.T, p *payloadtest.Payload) {
	require.Equal(t, receipt.AgentNone, p.Receipt.Agent)
	require.NoDirExists(t, filepath.Join(p.Dir, "share/kata-containers"))
	require.NoDirExists(t, filepath.Join(p.Dir, "share/ovmf"))
}

// programs checks every ELF file that a node would run.
func programs(t *testing.T, p *payloadtest.Payload) {
	found := map[string]bool{}
	for _, c := range p.Components {
		for _, f := range c.Files {
			if f.Type != metadata.TypeFile || f.Mode != "0755" {
				continue
			}
			isELF, err := contract.CheckProgram(filepath.Join(p.Root, f.Path), arch(t))
			require.NoError(t, err, "component %s", c.Name)
			if isELF {
				found[path.Base(f.Path)] = true
			}
		}
	}
	for _, program := range []string{"containerd-shim-kata-v2", "kata-runtime", "kata-monitor", "kata-deploy"} {
		require.True(t, found[program], "there is no program %s among %v", program, found)
	}
	require.Equal(t, guestOnNode(t), found[hypervisor(t)], "whether there is a hypervisor")
}

// versions runs the payload's own programs.
func versions(t *testing.T, p *payloadtest.Payload) {
	version := map[string]string{}
	built := map[string]bool{}
	owner := map[string]string{}
	for _, c := range p.Components {
		version[c.Name] = c.Version
		built[c.Name] = !slices.ContainsFunc(c.Sources, func(s metadata.Source) bool { return strings.HasPrefix(s.PURL, "pkg:oci/") })
		for _, f := range c.Files {
			owner[path.Base(f.Path)] = c.Name
		}
	}
	type program struct {
		component string
		argv      []string
	}
	programs := []program{
		{"shim-v2-go", []string{"bin/containerd-shim-kata-v2", "--version"}},
		{"shim-v2-go", []string{"bin/kata-runtime", "--version"}},
	}
	if guestOnNode(t) {
		programs = append(programs, program{owner[hypervisor(t)], []string{"bin/" + hypervisor(t), "--version"}})
	}
	// That it is there is asked where a configuration names it.
	if version["virtiofsd"] != "" {
		programs = append(programs, program{"virtiofsd", []string{"libexec/virtiofsd", "--version"}})
	}
	if version["nydus-snapshotter"] != "" {
		programs = append(programs, program{"nydus-snapshotter", []string{"nydus-snapshotter/containerd-nydus-grpc", "--version"}})
	}
	emulator := emulator(t)
	for _, tc := range programs {
		argv := slices.Concat(emulator, []string{filepath.Join(p.Dir, tc.argv[0])}, tc.argv[1:])
		out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
		require.NoError(t, err, "%s: %s", tc.argv[0], out)
		if !built[tc.component] {
			// An import goes by the release that it was published with.
			require.NotEmpty(t, out, tc.argv[0])
			continue
		}
		// Debian's version is upstream's with additions.
		upstream := regexp.MustCompile(`^[0-9.]+`).FindString(version[tc.component])
		require.NotEmpty(t, upstream)
		require.Contains(t, string(out), upstream, tc.argv[0])
	}
	if guestOnNode(t) {
		kernel, err := os.Readlink(filepath.Join(p.Dir, "share/kata-containers/vmlinuz.container"))
		require.NoError(t, err)
		require.Contains(t, kernel, regexp.MustCompile(`^[0-9.]+`).FindString(version["kernel"]))
	}
	// The configuration is for the runtime that it comes with.
	require.Equal(t, version["shim-v2-go"], version["runtimeconfig"])
}

// installAndCleanup runs the payload's entry point as a node would.
func installAndCleanup(t *testing.T, p *payloadtest.Payload) {
	prefix := t.TempDir()
	node := filepath.Join(prefix, "opt/kata")
	emulator := emulator(t)
	deploy := func(args ...string) []byte {
		argv := slices.Concat(emulator, []string{filepath.Join(p.Root, image.Entrypoint)}, args, []string{"--files-only", "--prefix=" + prefix, "--output=json"})
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Stderr = &bytes.Buffer{}
		out, err := cmd.Output()
		require.NoError(t, err, "%v: %s", args, cmd.Stderr)
		return out
	}
	deploy("install-stage-artifacts", "--artifacts="+p.Dir)
	require.Equal(t, list(t, p.Dir), list(t, node))

	var again struct {
		Artifacts struct{ Installed, Unchanged int }
	}
	require.NoError(t, json.Unmarshal(deploy("install-stage-artifacts", "--artifacts="+p.Dir), &again))
	require.Zero(t, again.Artifacts.Installed, "installing again changes something")
	require.NotZero(t, again.Artifacts.Unchanged)

	deploy("cleanup-stage-remove-artifacts")
	left, err := os.ReadDir(prefix)
	require.NoError(t, err)
	require.Empty(t, left)
}

// list describes every path below dir, without the installer's own record.
func list(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == ".kata-deploy.json" {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %x", sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			what += " " + target
		}
		if name != "." {
			out = append(out, name+" "+what)
		}
		return nil
	}))
	return out
}
