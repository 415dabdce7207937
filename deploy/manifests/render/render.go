// Package render renders Helm charts without a cluster, as `helm template` does.
package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	hook "helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/releaseutil"
	"sigs.k8s.io/yaml"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Chart is a chart that was read.
type Chart struct{ chart *chart.Chart }

// Load reads a chart from its directory or from an archive.
func Load(name string) (*Chart, error) {
	c, err := loader.Load(name)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading the chart %s: %w", name, err))
	}
	return &Chart{chart: c}, nil
}

// ReadValues reads a file of values.
func ReadValues(name string) (map[string]any, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading values: %w", err))
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(content, &values); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading the values in %s: %w", name, err))
	}
	return values, nil
}

// Release is what a chart is rendered for.
type Release struct {
	Name, Namespace string
}

// Documents gives what the chart would install, each object as one document of
// YAML, in the order in which Helm would. Of values, later ones win, table by
// table. What is wrong with them is one error that names them. Hooks are not among
// them; one that installing needs is an error.
func (c *Chart) Documents(release Release, values ...map[string]any) ([][]byte, error) {
	hooks, manifests, err := c.render(release, values)
	if err != nil {
		return nil, err
	}
	for _, h := range hooks {
		for _, e := range h.Events {
			if e != hook.HookPreDelete {
				return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("the chart has the hook %s in %s, which needs Helm itself", e, h.Path))
			}
		}
	}
	documents := make([][]byte, len(manifests))
	for i, m := range manifests {
		documents[i] = []byte(m.Content)
	}
	return documents, nil
}

// BeforeDelete gives what Helm would bring, and run, before it deletes a release: its
// hooks, each as one document of YAML, in the order in which Helm would.
func (c *Chart) BeforeDelete(release Release, values ...map[string]any) ([][]byte, error) {
	hooks, _, err := c.render(release, values)
	if err != nil {
		return nil, err
	}
	var documents [][]byte
	slices.SortStableFunc(hooks, func(a, b *hook.Hook) int { return cmp.Compare(a.Weight, b.Weight) })
	for _, h := range hooks {
		if slices.Contains(h.Events, hook.HookPreDelete) {
			documents = append(documents, []byte(h.Manifest))
		}
	}
	return documents, nil
}

func (c *Chart) render(release Release, values []map[string]any) ([]*hook.Hook, []releaseutil.Manifest, error) {
	given := map[string]any{}
	for _, v := range values {
		// Merging changes what it merges.
		own := map[string]any{}
		if data, err := json.Marshal(v); err != nil {
			return nil, nil, exitcode.With(exitcode.BadInput, fmt.Errorf("the chart's values: %w", err))
		} else if err := json.Unmarshal(data, &own); err != nil {
			return nil, nil, exitcode.With(exitcode.BadInput, fmt.Errorf("the chart's values: %w", err))
		}
		given = chartutil.MergeTables(own, given)
	}
	all, err := chartutil.ToRenderValues(c.chart, given, chartutil.ReleaseOptions{
		Name: release.Name, Namespace: release.Namespace, Revision: 1, IsInstall: true,
	}, nil)
	if err != nil {
		return nil, nil, exitcode.With(exitcode.BadInput, fmt.Errorf("the chart's values: %w", err))
	}
	files, err := engine.Render(c.chart, all)
	if err != nil {
		return nil, nil, exitcode.With(exitcode.BadInput, fmt.Errorf("rendering the chart: %w", err))
	}
	hooks, manifests, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return nil, nil, fmt.Errorf("sorting what was rendered: %w", err)
	}
	return hooks, manifests, nil
}
