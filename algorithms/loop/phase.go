package loop

// Phase is where a workload is between zero and many.
type Phase string

const (
	// Awake means that ready instances take the requests; the gateways are out of the path.
	Awake Phase = "Awake"
	// GoingToSleep means that demand is zero and the gateways are being put into the path, before
	// the last instance goes.
	GoingToSleep Phase = "GoingToSleep"
	// Asleep means no replicas: the gateways hold what comes.
	Asleep Phase = "Asleep"
	// Waking means that replicas are wanted and none is ready, or that gateways still release what
	// they held.
	Waking Phase = "Waking"
)
