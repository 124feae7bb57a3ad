package benchlive

import (
	_ "embed"
	"strings"
	"time"
)

// twitter is an excerpt of 240 s of the trace twitter_aug21_1s (counts per second, from second 5340
// on), with a burst in it.
//
//go:embed twitter_240s.csv
var twitter string

// trial is one load under one policy, replayed and simulated.
type trial struct {
	name, about string
	// generate is the load, or empty for the excerpt of the trace.
	generate string
	policy   string
	// delay is added to each pod's start, by the testbed's annotation: the time that a pull would
	// take.
	delay time.Duration
	// least is minReplicas; 0 begins asleep, else that many pods are ready at the beginning.
	least int
	// seed is of arrivals and work.
	seed uint64
	// set holds further fields of the scenario.
	set map[string]string
}

// What all trials share. Requests sleep, so that two cores bear them, and are so long that the
// machine's own delays are small beside them.
const (
	service        = "exp:250ms"
	podConcurrency = 4
	target         = 3
	maxReplicas    = 8
	idle           = 10 * time.Second
	// lameDuck is the default of the sidecar's --lame-duck.
	lameDuck = 3 * time.Second
)

// trials are three to five minutes each. Loads stay off the edge between two counts of pods: there
// the same policy on the same requests goes one way or the other by chance, in the cluster and in
// the simulator, and one run says nothing of the other (24/s of 250 ms at 3 a pod was such a load).
func trials() []trial {
	return []trial{
		{
			name: "steady", about: "Poisson arrivals at 28/s, on one pod at first",
			generate: "poisson:rate=28,duration=180s", policy: "kpa:stableWindow=30s,panicWindowPercentage=20", delay: time.Second, least: 1, seed: 11,
		},
		{
			name: "ramp", about: "3/s, up to 60/s within half a minute, and slowly down again",
			generate: "flash:base=3,peak=60,at=20s,rise=30s,decay=50s,duration=240s", policy: "target:window=10s,stabilizationWindow=20s", delay: 5 * time.Second, least: 1, seed: 12,
		},
		{
			name: "bursts", about: "30 s of silence and 30 s of 20/s in turn, from zero",
			generate: "steps:rates=0/20/0/20/0/20/0/20,each=30s", policy: "kpa:stableWindow=12s,panicWindowPercentage=25", delay: 2 * time.Second, seed: 13,
		},
		{
			name: "trace", about: "240 s of a recorded load with a burst, its peak scaled to 6 pods",
			policy: "staffing:podConcurrency=4,window=15s", delay: 5 * time.Second, least: 1, seed: 14, set: map[string]string{"peakReplicas": "6"},
		},
		{
			name: "sparse", about: "bursts of about twenty requests after idle times of half a minute and more, down to zero in between",
			generate: "sparse:idle=lognormal:30s,0.5,duration=300s,burst=20,gap=200ms", policy: "kpa:stableWindow=12s", delay: 3 * time.Second, seed: 16,
		},
		{
			name: "surges", about: "12/s and 60/s in turn, for half a minute and for a quarter of one, without notice",
			generate: "mmpp:rates=12/60,holds=30s/15s,duration=240s", policy: "lookahead", delay: 2 * time.Second, least: 1, seed: 17,
		},
	}
}

// calibration is what is replayed first, to measure the testbed's own times: wake-ups of several
// pods.
func calibration() trial {
	return trial{
		name: "calibration", about: "four wake-ups", generate: "steps:rates=0/12/0/12/0/12/0/12,each=15s",
		policy: "kpa:stableWindow=6s,panicWindowPercentage=50", delay: time.Second, seed: 10, set: map[string]string{"scaleToZeroAfter": "2s"},
	}
}

// idle is the scale-to-zero time of a trial.
func (t trial) idle() time.Duration {
	if d, err := time.ParseDuration(t.set["scaleToZeroAfter"]); err == nil {
		return d
	}
	return idle
}

// label is the policy's name alone.
func (t trial) label() string {
	name, _, _ := strings.Cut(t.policy, ":")
	return name
}
