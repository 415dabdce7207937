// Package fill fills the templates of what is given to a cluster with what a
// payload's receipt says. Text templates of Go, with the fields of Payload.
package fill

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Payload is what templates see.
type Payload struct {
	Platform string
	// Repository is where the payload is published, registry and all. It is
	// empty where that is the embedded registry, which has no address of its own.
	Repository string
	Digest     string
	Shims      []Shim
}

// Shim is a shim that the payload has.
type Shim struct {
	// Name is upstream's, such as qemu-tdx.
	Name string
	// Arches are those that both the shim and the payload are for, by Go's names.
	Arches []string
}

// Of gives what a receipt says. The shims are those of the payload, with all
// architectures that each is for, as NAME=ARCH,ARCH.
func Of(r *receipt.Receipt, shims []string) (*Payload, error) {
	p := &Payload{Platform: r.Platform, Digest: r.Digest}
	if r.Registry != receipt.Embedded {
		p.Repository = r.Registry + "/" + r.Repository
	}
	for _, text := range shims {
		name, arches, ok := strings.Cut(text, "=")
		if !ok || name == "" || arches == "" {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%q is not SHIM=ARCH,ARCH", text))
		}
		s := Shim{Name: name}
		for _, arch := range strings.Split(arches, ",") {
			if slices.ContainsFunc(r.Manifests, func(m receipt.Manifest) bool { return m.Arch == arch }) {
				s.Arches = append(s.Arches, arch)
			}
		}
		if len(s.Arches) == 0 {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("the payload of %s has no architecture of the shim %s: %s", r.Platform, name, arches))
		}
		p.Shims = append(p.Shims, s)
	}
	if len(p.Shims) == 0 {
		return nil, exitcode.With(exitcode.BadInput, errors.New("a payload has at least one shim, and none is given"))
	}
	return p, nil
}

// variables are how the installer's variables name architectures.
var variables = map[string]string{"amd64": "X86_64", "arm64": "AARCH64", "ppc64le": "PPC64LE", "s390x": "S390X"}

// Variables gives the shims for each architecture, by what the installer's
// variables call it.
func (p *Payload) Variables() map[string]string {
	shims := map[string]string{}
	for _, s := range p.Shims {
		for _, arch := range s.Arches {
			name := variables[arch]
			shims[name] = strings.TrimSpace(shims[name] + " " + s.Name)
		}
	}
	return shims
}

// Fill fills a template.
func Fill(text string, p *Payload) ([]byte, error) {
	t, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			data, err := json.Marshal(v)
			return string(data), err
		},
	}).Parse(text)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading the template: %w", err))
	}
	var out bytes.Buffer
	if err := t.Execute(&out, p); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("filling the template: %w", err))
	}
	return out.Bytes(), nil
}
