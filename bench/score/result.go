// Package score is the result of a run in numbers: quantiles, elasticity and costs, with intervals
// over seeds and Pareto fronts. It is pure.
package score

// Result is one run in numbers: one policy on one trace with one seed. Times are in seconds, shares
// within 0–1.
type Result struct {
	Policy   string `json:"policy"`
	Trace    string `json:"trace"`
	Scenario string `json:"scenario"`
	Seed     uint64 `json:"seed"`
	// Length is the time simulated, from the first instant of the trace until its last request was
	// answered.
	Length float64 `json:"length"`

	// Requests = served + Lost. Lost ones met a full hold or queue, or waited longer than it
	// allows.
	Requests int64 `json:"requests"`
	Lost     int64 `json:"lost"`
	// Waits are from arrival until a pod begins to work on the request; of the served ones.
	WaitMean float64 `json:"waitMean"`
	WaitP50  float64 `json:"waitP50"`
	WaitP90  float64 `json:"waitP90"`
	WaitP99  float64 `json:"waitP99"`
	WaitP999 float64 `json:"waitP999"`
	WaitMax  float64 `json:"waitMax"`
	// Slowdown is (wait + work) / the work it would have been alone, ≥ 1.
	SlowdownP50 float64 `json:"slowdownP50"`
	SlowdownP99 float64 `json:"slowdownP99"`
	// SLOViolations is the share of requests that waited longer than the SLO allows or were lost.
	SLOViolations float64 `json:"sloViolations"`

	// ColdStarts are requests that arrived while no pod was ready; WakeUps how often the workload
	// left zero; Starts how often a pod was started, FailedStarts how often in vain.
	ColdStarts     int64   `json:"coldStarts"`
	ColdStartShare float64 `json:"coldStartShare"`
	WakeUps        int64   `json:"wakeUps"`
	Starts         int64   `json:"starts"`
	FailedStarts   int64   `json:"failedStarts"`

	// PodSeconds is what is paid for: from a pod's creation to its end. It is the sum of ready,
	// starting and terminating time. IdleSeconds is the slots × time that a ready pod did not work,
	// in pods; ZeroDemandSeconds the pod time of steps without demand.
	PodSeconds         float64 `json:"podSeconds"`
	ReadySeconds       float64 `json:"readySeconds"`
	StartingSeconds    float64 `json:"startingSeconds"`
	TerminatingSeconds float64 `json:"terminatingSeconds"`
	IdleSeconds        float64 `json:"idleSeconds"`
	ZeroDemandSeconds  float64 `json:"zeroDemandSeconds"`
	// WorkSeconds is Σ work / pod concurrency: the pod-seconds that the work itself is worth, a
	// bound below which nothing can go.
	WorkSeconds float64 `json:"workSeconds"`
	// Cost is by the scenario's rates.
	Cost float64 `json:"cost"`

	// SPEC RG elasticity (Herbst et al. 2016), as shares rather than percent: accuracy θ, timeshare
	// τ, instability υ.
	ThetaU  float64 `json:"thetaU"`
	ThetaO  float64 `json:"thetaO"`
	TauU    float64 `json:"tauU"`
	TauO    float64 `json:"tauO"`
	Upsilon float64 `json:"upsilon"`

	// Changes counts changes of the wanted count, Reversals those that went the other way than the
	// one before.
	Changes      int64 `json:"changes"`
	Reversals    int64 `json:"reversals"`
	PeakReplicas int   `json:"peakReplicas"`
	// Decisions is how often the policy was asked.
	Decisions int64 `json:"decisions"`
}

// Series is a run over time, in steps of equal length; every slice has the same length. Means are
// over the step.
type Series struct {
	// Step is in seconds.
	Step float64 `json:"step"`
	// Arrivals are requests per second; Demand is the mean of the requests that would be in service
	// if pods were endless, in pods; Waiting the mean number of requests that wait; Wanted, Ready
	// and Starting mean pods.
	Arrivals []float32 `json:"arrivals"`
	Demand   []float32 `json:"demand"`
	Waiting  []float32 `json:"waiting"`
	Wanted   []float32 `json:"wanted"`
	Ready    []float32 `json:"ready"`
	Starting []float32 `json:"starting"`
	// ColdStarts and Violations count the requests that arrived in the step.
	ColdStarts []float32 `json:"coldStarts"`
	Violations []float32 `json:"violations"`
	// WaitMax is the longest wait of those that began to be served in the step, in seconds.
	WaitMax []float32 `json:"waitMax"`
}

// Bucket is one bar of a histogram: how many values were at most Upper and above the one before.
type Bucket struct {
	Upper float64 `json:"upper"`
	Count int64   `json:"count"`
}

// Run is a Result with all from which it and its reports can be made again; one file under DIR/raw
// holds one.
type Run struct {
	Result Result   `json:"result"`
	Series Series   `json:"series"`
	Waits  []Bucket `json:"waits"`
	// Decisions are the changes of the wanted count, the last ones if there were many.
	Decisions []Change `json:"decisions,omitempty"`
}

// Change is one change of the wanted count, with the policy's reason.
type Change struct {
	T       float64 `json:"t"`
	From    int     `json:"from"`
	To      int     `json:"to"`
	Reason  string  `json:"reason"`
	Message string  `json:"message,omitempty"`
}
