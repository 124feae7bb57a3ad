package wire

// Version is the version of the wire that this package describes (docs/wire.md). It is the first
// element of every path; what changes the meaning of a field gets a new one.
const Version = "v1"

// The gateway's control port speaks HTTP over TLS, and asks for the controller's certificate:
//
//	PUT /v1/assignments/{owner}     body: Assignments as JSON. Replaces what that owner had
//	                                assigned, and nothing of other owners. 204 when every port is
//	                                in effect; 200 with Refusals as JSON when the rest is; 400 with
//	                                the fault as text when the body cannot be read; 409 when a newer
//	                                generation or epoch of that owner is in effect.
//	DELETE /v1/assignments/{owner}  forgets the owner and what it had assigned. 204.
//	GET /v1/reports                 an endless answer of Report values, one JSON object a line
//	                                (application/x-ndjson): one at once, one within milliseconds of
//	                                a workload's first held request, and no later than every second.
const (
	AssignmentsPath = "/" + Version + "/assignments"
	ReportsPath     = "/" + Version + "/reports"
)

// OwnerPath is the path of an owner's assignments.
func OwnerPath(owner string) string { return AssignmentsPath + "/" + owner }

// Assignments is everything that one owner wants the gateways to hold for, pushed whole to each
// gateway. An owner is a controller, or a shard of one. Its name is a DNS label, at most 63
// characters, and outlives the process: whoever takes over pushes under the same name.
type Assignments struct {
	// Epoch names the owner's life and grows with each (Unix nanoseconds of its start). Generation
	// counts up within an epoch. A gateway refuses an older epoch or generation of the same owner.
	Epoch      int64        `json:"epoch"`
	Generation uint64       `json:"generation"`
	Ports      []Assignment `json:"ports"`
}

// Refusals answers a push of which some ports are not in effect.
type Refusals struct {
	Refused []RefusedPort `json:"refused"`
}

// Assignment gives one port of one Service a port of its own on every gateway. The port a
// connection arrives on tells the Service; no header is read for that.
type Assignment struct {
	Namespace string `json:"namespace"`
	// Service is the user's Service; its ready endpoints are where requests go.
	Service string `json:"service"`
	// PortName is the name of the Service's port ("" where it has none), by which endpoint slices
	// name theirs.
	PortName string `json:"portName,omitempty"`
	// Listen is the gateway's port for it, 1–65535.
	Listen int `json:"listen"`
	// Protocol is "http" (HTTP/1.1, h2c, gRPC, upgrades) or "tcp".
	Protocol string `json:"protocol"`
	// InPath says that the gateway is an endpoint of the Service, or is to become one. When it
	// turns false, new arrivals are served for a while (the gateway's path-linger), and their
	// connections are closed after the answer so that clients move to the pods. Then connections
	// are refused.
	InPath bool `json:"inPath"`
	// MaxHeld bounds requests held at once for this port on one gateway; 0 means the gateway's own
	// default.
	MaxHeld int `json:"maxHeld,omitempty"`
	// MaxHeldBytes bounds the body bytes buffered for them; 0 means the gateway's own default.
	MaxHeldBytes int64 `json:"maxHeldBytes,omitempty"`
	// HoldSeconds is how long a request may be held before it is answered 504; 0 means the
	// gateway's own default.
	HoldSeconds float64 `json:"holdSeconds,omitempty"`
	// PodConcurrency is how many requests the gateway keeps in flight per pod; 0 means no pacing
	// beyond the default.
	PodConcurrency int `json:"podConcurrency,omitempty"`
	// Failure, when not empty, says why no pod can start; held and new requests are answered 503
	// with it at once.
	Failure string `json:"failure,omitempty"`
}

// Report is what a gateway says of itself; counters are of this gateway's life.
type Report struct {
	// Gateway is the gateway's pod name (or host name).
	Gateway string `json:"gateway"`
	// StartTime identifies the gateway's life: Unix seconds of its start. A change means reset
	// counters.
	StartTime float64 `json:"startTime"`
	// Monotonic is the gateway's own clock when the integrals below were read, in seconds since its
	// start.
	Monotonic float64 `json:"monotonic"`
	// Owners lists whose Assignments are in effect, by name.
	Owners []OwnerReport `json:"owners"`
	// Ports lists the assigned ports in order of namespace, service and port name.
	Ports []PortReport `json:"ports"`
	// Refused lists assigned ports that are not in effect, at most MaxRefused of them.
	Refused []RefusedPort `json:"refused,omitempty"`
}

// MaxRefused bounds Report.Refused and Refusals.
const MaxRefused = 1000

// OwnerReport names the Assignments of one owner that are in effect.
type OwnerReport struct {
	Owner      string `json:"owner"`
	Epoch      int64  `json:"epoch"`
	Generation uint64 `json:"generation"`
}

// RefusedPort is an assigned port that is not in effect, and why. The rest of its push is.
type RefusedPort struct {
	Owner     string `json:"owner"`
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	PortName  string `json:"portName,omitempty"`
	Listen    int    `json:"listen"`
	Error     string `json:"error"`
}

// PortReport is one assigned port's part of a Report.
type PortReport struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	PortName  string `json:"portName,omitempty"`
	// Owner is whose assignment is in effect, Listen its number; both are zero for a port that was
	// taken away and still drains.
	Owner  string `json:"owner,omitempty"`
	Listen int    `json:"listen,omitempty"`
	// Listening is false while the gateway cannot accept on the assigned port; Error says why.
	Listening bool   `json:"listening"`
	Error     string `json:"error,omitempty"`
	// InPath says that the port takes connections, since its assignment has InPath. A slice may
	// name the gateway from then on.
	InPath bool `json:"inPath"`
	// Waiting is the number of requests held now; WaitingSeconds the integral of it in
	// request-seconds.
	Waiting        int     `json:"waiting"`
	WaitingSeconds float64 `json:"waitingSeconds"`
	// Forwarding is the number of requests that this gateway has in flight at pods now (their pods
	// count them).
	Forwarding int `json:"forwarding"`
	// Arrived counts requests that came in; Forwarded those handed to a pod; the rest were answered
	// by the gateway: Rejected (full or failed: 503), Expired (held too long: 504), Canceled
	// (client left while held).
	Arrived   uint64 `json:"arrived"`
	Forwarded uint64 `json:"forwarded"`
	Rejected  uint64 `json:"rejected"`
	Expired   uint64 `json:"expired"`
	Canceled  uint64 `json:"canceled"`
	// ReadyPods is how many endpoints the gateway would forward to now.
	ReadyPods int `json:"readyPods"`
	// ColdStart is the latest wake-up that this gateway has seen, nil before the first.
	ColdStart *ColdStart `json:"coldStart,omitempty"`
}

// ColdStart gives the instants of one wake-up as the gateway saw them, in Unix nanoseconds; 0 means
// not yet.
type ColdStart struct {
	// Detected: the first request found no pod to go to.
	Detected int64 `json:"detected"`
	// Answering: a pod accepted the gateway's probe. Pod is that pod's address.
	Answering int64  `json:"answering,omitempty"`
	Pod       string `json:"pod,omitempty"`
	// Released: the first held request was handed to a pod.
	Released int64 `json:"released,omitempty"`
	// Held is how many requests had waited by then.
	Held int `json:"held"`
}
