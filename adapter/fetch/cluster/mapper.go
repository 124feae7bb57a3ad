// Package cluster tells rules what a cluster has: which kinds of objects, and which objects of a
// kind.
package cluster

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
)

// Mapper knows the cluster's resources, as they were last discovered. The metrics groups are left
// out: this process serves them, and their resources are names of metrics. It is safe for
// concurrent use; Refresh is called by one goroutine.
type Mapper struct {
	client  discovery.DiscoveryInterface
	current atomic.Pointer[mapped]
}

type mapped struct {
	meta.RESTMapper
	// sum tells one list of resources from another.
	sum string
}

// NewMapper makes a mapper that knows nothing yet.
func NewMapper(client discovery.DiscoveryInterface) *Mapper { return &Mapper{client: client} }

// Refresh discovers the resources, and reports whether they have changed.
func (m *Mapper) Refresh() (changed bool, err error) {
	groups, err := restmapper.GetAPIGroupResources(m.client)
	if err != nil {
		return false, fmt.Errorf("discover the cluster's resources: %w", err)
	}
	var kept []*restmapper.APIGroupResources
	var lines []string
	for _, g := range groups {
		if g.Group.Name == custom_metrics.GroupName || g.Group.Name == external_metrics.GroupName {
			continue
		}
		kept = append(kept, g)
		for version, resources := range g.VersionedResources {
			for _, r := range resources {
				lines = append(lines, fmt.Sprintf("%s/%s %s %s %v", g.Group.Name, version, r.Name, r.Kind, r.Namespaced))
			}
		}
	}
	if len(kept) == 0 {
		return false, errors.New("discover the cluster's resources: there are none")
	}
	sort.Strings(lines)
	next := &mapped{RESTMapper: restmapper.NewDiscoveryRESTMapper(kept), sum: strings.Join(lines, "\n")}
	old := m.current.Load()
	if old != nil && old.sum == next.sum {
		return false, nil
	}
	m.current.Store(next)
	return true, nil
}

// Get is the mapper, nil while nothing is known.
func (m *Mapper) Get() meta.RESTMapper {
	if c := m.current.Load(); c != nil {
		return c.RESTMapper
	}
	return nil
}
