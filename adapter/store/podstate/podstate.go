// Package podstate describes a pod as it was last seen, and says whether it is expected to report.
package podstate

import (
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Pod is a pod as the informer last showed it. The instants are those at which the change was seen;
// where a pod is older than the process they are what the API says, in whole seconds. The zero time
// means not yet.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Labels          labels.Set
	IP              string
	// MetricsPort is the container port of that name; 0 means that the pod has none and cannot be
	// read.
	MetricsPort int
	// State is algorithms.PodStarting, PodReady or PodTerminating.
	State algorithms.PodState
	// Running says that the container with the metrics port runs (any container, when there is no
	// such port).
	Running                            bool
	Created, Scheduled, Started, Ready time.Time
	// Limit is how many requests it works on at a time, as its sidecar last said; 0 is without
	// limit or unknown.
	Limit float64
	// Endpoint is where it is read besides its sidecar, by a preset; nil: nowhere.
	Endpoint *Endpoint
	// Trouble is why it cannot start without help ("ImagePullBackOff: …"), "" when nothing is known
	// to be wrong.
	Trouble string
}

// Endpoint is where a preset reads a pod.
type Endpoint struct {
	// Preset is the preset's name, Address its host and port on the pod.
	Preset, Address, Scheme, Path string
	// Fault says in words that follow "it" or the pod's name why it cannot be read, "" for nothing.
	Fault string
	// Running says that its container runs, Started since when, by the API's clock.
	Running bool
	Started time.Time
	// MinReadyAge is how long the pod must have been ready to count.
	MinReadyAge time.Duration
}

// Expected says that a pod's answer is needed for a complete value: it was ready once and its
// container runs. One that is not ready now may still serve what it began, and readiness may fail
// for the same reason as reading does.
func (p *Pod) Expected() bool { return p.serves() && p.Running }

// ExpectedByPreset is the same for what a preset reads.
func (p *Pod) ExpectedByPreset() bool {
	return p.serves() && (p.Endpoint == nil || p.Endpoint.Fault != "" || p.Endpoint.Running)
}

// serves says that it is ready, or was.
func (p *Pod) serves() bool {
	return p.State == algorithms.PodReady || p.State == algorithms.PodStarting && !p.Ready.IsZero()
}

// Young says that it has not been ready for as long as its preset wants.
func (p *Pod) Young(now time.Time) bool {
	return p.Endpoint != nil && p.Endpoint.MinReadyAge > 0 && (p.Ready.IsZero() || now.Sub(p.Ready) < p.Endpoint.MinReadyAge)
}
