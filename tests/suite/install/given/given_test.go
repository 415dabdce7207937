//go:build payload

package install_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-build/kiln/tests/suite/install"
)

// TestAClusterIsGivenBack uses a node as one of somebody's cluster, and fails, or is
// refused, at different points. Nothing of the test may be left.
func TestAClusterIsGivenBack(t *testing.T) {
	c := install.StartOwnCluster(t)
	before := c.State(t)
	givenBack := func(t *testing.T) {
		t.Helper()
		require.Equal(t, before, c.State(t))
		namespaces, err := c.Client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for _, namespace := range namespaces.Items {
			require.NotEqual(t, install.GivenNamespace, namespace.Name)
		}
		left, err := c.Run(t.Context(), "helm", "list", "--all-namespaces", "--short")
		require.NoError(t, err)
		require.Empty(t, left)
	}

	t.Run("what is seen through the API is what is there", func(t *testing.T) {
		s := c.Given(t)
		require.Equal(t, before, s.State(t))
	})
	givenBack(t)

	t.Run("the test ends in the middle, and would not touch what is there", func(t *testing.T) {
		s := c.Given(t)
		require.NoError(t, s.Payload(t).Apply(t.Context()))
		err := s.Untouched(t.Context())
		require.ErrorContains(t, err, "there is an installation already")
		require.ErrorContains(t, err, "Helm's release kata-deploy")
		for _, class := range c.Names("") {
			require.ErrorContains(t, err, "the RuntimeClass "+class)
		}
		require.NoError(t, install.Until(t.Context(), install.Patience, func() (bool, error) {
			labels, err := c.Labels(t.Context())
			return labels[install.ReadyLabel] != "", err
		}))
	})
	givenBack(t)
}
