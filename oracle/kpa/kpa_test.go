// Package kpa_test is the oracle of algorithms/kpa: it drives Knative's own autoscaler
// (knative.dev/serving, pkg/autoscaler/scaling) and Sluice's with the same random sequences and
// demands the same answer at every step.
//
//	go test -v                          a million steps, the seed is drawn and printed
//	go test -v -args -seed 7 -steps 5e6 the same sequence again, or more of it
package kpa_test

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/kpa"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	am "knative.dev/serving/pkg/autoscaler/metrics"
	"knative.dev/serving/pkg/autoscaler/scaling"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the random sequences, 0 draws one")
	stepsFlag = flag.Float64("steps", 1e6, "steps to compare")
)

// sources is what both sides are told at a step; it is Knative's metric client and its pod counter.
type sources struct {
	ready           int
	stable, panicky float64
	unknown         bool
}

func (s *sources) ReadyCount() (int, error)    { return s.ready, nil }
func (s *sources) NotReadyCount() (int, error) { return 0, nil }

func (s *sources) StableAndPanicConcurrency(types.NamespacedName, time.Time) (float64, float64, error) {
	if s.unknown {
		return 0, 0, am.ErrNoData
	}
	return s.stable, s.panicky, nil
}

func (s *sources) StableAndPanicRPS(key types.NamespacedName, now time.Time) (float64, float64, error) {
	return s.StableAndPanicConcurrency(key, now)
}

// pick returns one of its arguments.
func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// config draws valid parameters, boundaries more often than chance would.
func config(rng *rand.Rand) kpa.Config {
	c := kpa.Default()
	c.Metric = pick(rng, algorithms.Concurrency, "rps")
	c.Target = pick(rng, 1, 10, 70, 0.1, 0.7, 1+rng.Float64()*100)
	c.TotalValue = pick(rng, 0, c.Target, c.Target/0.7, rng.Float64()*200)
	c.TargetBurstCapacity = pick(rng, -1, 0, 211, rng.Float64()*500)
	c.StableWindow = algorithms.Duration(pick(rng, 6*time.Second, time.Minute, time.Minute, 97*time.Second, time.Hour))
	c.PanicWindowPercentage = pick(rng, 1.0, 10, 10, 33, 100)
	c.PanicThresholdPercentage = pick(rng, 110.0, 200, 200, 1000, 110+rng.Float64()*890)
	c.MaxScaleUpRate = pick(rng, 1.1, 2, 10, 1000, 1+1e-9, 1+rng.Float64()*9)
	c.MaxScaleDownRate = pick(rng, 1.1, 2, 2, 10, 1+1e-9, 1+rng.Float64()*9)
	c.ScaleDownDelay = algorithms.Duration(pick(rng, 0, 0, time.Second, 2*time.Second, 15*time.Second, time.Minute, 15*time.Minute))
	c.ActivationScale = pick(rng, 1, 1, 2, 5, 50)
	c.Reachable = rng.IntN(5) > 0
	return c
}

// load draws a value near what one of the comparisons turns on.
func load(rng *rand.Rand, c kpa.Config, ready int) float64 {
	pods := max(1, float64(ready))
	v := pick(rng,
		0, 0,
		c.Target*pods*rng.Float64()*3,
		// an exact multiple of the target
		c.Target*float64(rng.IntN(60)),
		c.Target*pods*c.PanicThresholdPercentage/100,                // the threshold itself
		c.Target*(math.Ceil(pods*c.PanicThresholdPercentage/100)-1), // the last count below it
		c.Target*math.Ceil(c.MaxScaleUpRate*math.Min(pods, 100)),    // the bound up
		c.Target*math.Floor(pods/c.MaxScaleDownRate),                // the bound down
		c.TotalValue*pods-c.TargetBurstCapacity,                     // no burst capacity left
		rng.Float64()*c.Target/1e6,                                  // next to nothing
		// as Knative rounds its averages
		math.Round(c.Target*pods*rng.Float64()*2*1e6)/1e6,
		c.Target*1e4*rng.Float64(),
	)
	switch rng.IntN(4) {
	case 0:
		v = math.Nextafter(v, math.Inf(1))
	case 1:
		v = math.Nextafter(v, 0)
	}
	return math.Max(0, v)
}

// pause draws the time to the next step: a tick, or an edge of a window.
func pause(rng *rand.Rand, c kpa.Config) time.Duration {
	if rng.IntN(3) > 0 {
		return 2 * time.Second
	}
	d := pick(rng, 0, time.Nanosecond, time.Second, 1999*time.Millisecond, 3*time.Second,
		time.Duration(c.StableWindow), time.Duration(c.StableWindow)/2, time.Duration(c.ScaleDownDelay), time.Duration(rng.Int64N(int64(20*time.Second))))
	return max(0, d+pick(rng, 0, 0, time.Nanosecond, -time.Nanosecond))
}

// run compares for so many steps and returns the first difference, and how often each kind of step
// was seen. mutate and mutateTheirs, if any, alter the parameters of Sluice's and of Knative's side
// only.
func run(seed uint64, steps int, mutate, mutateTheirs func(*kpa.Config)) (diff string, seen map[string]int, err error) {
	rng := rand.New(rand.NewPCG(seed, 0x51))
	seen = map[string]int{}
	logger := zap.NewNop().Sugar()
	var scratch []algorithms.Term
	for done := 0; done < steps; {
		// simulated: another phase of the ticks
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
		c := config(rng)
		mine := c
		if mutate != nil {
			mutate(&mine)
		}
		ours, err := kpa.New(mine)
		if err != nil {
			return "", nil, fmt.Errorf("seed %d: %w", seed, err)
		}
		theirs := c
		if mutateTheirs != nil {
			mutateTheirs(&theirs)
		}
		total := theirs.TotalValue
		if total == 0 {
			total = theirs.Target
		}
		src := &sources{ready: pick(rng, 0, 0, 1, 2, 5, rng.IntN(300))}
		upstream := scaling.New(attribute.NewSet(), noop.NewMeterProvider(), "ns", "rev", src, src, &scaling.DeciderSpec{
			ScalingMetric: theirs.Metric, TargetValue: theirs.Target, TotalValue: total, TargetBurstCapacity: theirs.TargetBurstCapacity,
			StableWindow: time.Duration(theirs.StableWindow), PanicThreshold: theirs.PanicThresholdPercentage / 100,
			MaxScaleUpRate: theirs.MaxScaleUpRate, MaxScaleDownRate: theirs.MaxScaleDownRate, ScaleDownDelay: time.Duration(theirs.ScaleDownDelay),
			ActivationScale: int32(theirs.ActivationScale), Reachable: theirs.Reachable,
		})
		needs := ours.Needs()
		now := time.Now() // Knative's constructor reads the clock; here it is simulated
		calm := false
		for range min(200, steps-done) {
			done++
			calm = calm != (rng.IntN(30) == 0)
			src.stable, src.panicky, src.unknown = load(rng, c, src.ready), load(rng, c, src.ready), rng.IntN(40) == 0
			if calm { // or panic would hardly ever end
				src.panicky = min(src.panicky, c.Target*max(1, float64(src.ready)))
			}
			o := algorithms.Observation{
				Now: now, Scratch: scratch, Limits: algorithms.Limits{Max: 1 << 20},
				Replicas: algorithms.Replicas{Current: src.ready, Ready: src.ready},
				Signals: []algorithms.Signal{
					{Name: needs[0].Name, Window: needs[0].Window, Value: src.stable, Known: !src.unknown},
					{Name: needs[1].Name, Window: needs[1].Window, Value: src.panicky, Known: !src.unknown},
				},
			}
			if needs[1] == needs[0] { // one window for both: Knative reads two
				o.Signals, src.panicky = o.Signals[:1], src.stable
			}
			want := upstream.Scale(logger, now)
			got := ours.Decide(o)
			scratch = got.Terms
			excess := math.NaN()
			for _, t := range got.Terms {
				if t.Name == "excessBurstCapacity" {
					excess = t.Value
				}
			}
			seen[got.Reason]++
			if src.ready == 0 {
				seen["zero ready"]++
			}
			if got.Valid != want.ScaleValid || got.Valid && (got.Replicas != int(want.DesiredPodCount) || excess != float64(want.ExcessBurstCapacity)) {
				return fmt.Sprintf("seed %d, step %d: %d ready, stable %v, panic %v, unknown %v, parameters %+v:\nKnative %+v\nSluice  replicas %d, valid %v, excess burst capacity %v (%s)",
					seed, done, src.ready, src.stable, src.panicky, src.unknown, c, want, got.Replicas, got.Valid, excess, got.Message), seen, nil
			}
			now = now.Add(pause(rng, c))
			switch rng.IntN(10) {
			case 0:
				src.ready = pick(rng, 0, 1, 2, rng.IntN(300))
			case 1: // some are ready, some not yet
				src.ready = rng.IntN(got.Replicas + 1)
			default:
				if got.Valid {
					src.ready = got.Replicas
				}
			}
			src.ready = min(src.ready, 800) // keeps counts under 1,000,000, where Sluice's end
		}
	}
	return "", seen, nil
}

func TestEqual(t *testing.T) {
	seed, steps := *seedFlag, int(*stepsFlag)
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	if testing.Short() {
		steps = min(steps, 50_000)
	}
	synctest.Test(t, func(t *testing.T) {
		diff, seen, err := run(seed, steps, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff != "" {
			t.Fatalf("after %d steps: %s", seen["Stable"]+seen["Panic"]+seen["ScaleDownDelay"]+seen["NoData"], diff)
		}
		t.Logf("seed %d: %d steps equal in validity, desired scale and excess burst capacity; of them %v", seed, steps, seen)
		for _, kind := range []string{"Stable", "Panic", "ScaleDownDelay", "NoData", "zero ready"} {
			if seen[kind]*200 < steps {
				t.Errorf("only %d of %d steps were of kind %s: the generator has lost its way there", seen[kind], steps, kind)
			}
		}
	})
}

// TestMutantsAreCaught alters one parameter on one side and demands that the comparison notices.
func TestMutantsAreCaught(t *testing.T) {
	mutants := map[string]func(*kpa.Config){
		"target":                   func(c *kpa.Config) { c.Target = math.Nextafter(c.Target, math.Inf(1)) },
		"totalValue":               func(c *kpa.Config) { c.TotalValue += 0.5 },
		"targetBurstCapacity":      func(c *kpa.Config) { c.TargetBurstCapacity++ },
		"stableWindow":             func(c *kpa.Config) { c.StableWindow = min(c.StableWindow+1, algorithms.Duration(time.Hour)) },
		"panicThresholdPercentage": func(c *kpa.Config) { c.PanicThresholdPercentage = min(c.PanicThresholdPercentage+1e-9, 1000) },
		"maxScaleUpRate":           func(c *kpa.Config) { c.MaxScaleUpRate += 1e-3 },
		"maxScaleDownRate":         func(c *kpa.Config) { c.MaxScaleDownRate += 1e-3 },
		"scaleDownDelay":           func(c *kpa.Config) { c.ScaleDownDelay += algorithms.Duration(2 * time.Second) },
		"activationScale":          func(c *kpa.Config) { c.ActivationScale++ },
		"reachable":                func(c *kpa.Config) { c.Reachable = !c.Reachable },
		"initialScale":             func(c *kpa.Config) { c.InitialScale = 3 },
	}
	for name, mutate := range mutants {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				diff, seen, err := run(1, 200_000, mutate, nil)
				if err != nil {
					t.Fatal(err)
				}
				if diff == "" {
					t.Errorf("Sluice with a changed %s passed 200000 steps (%v): the comparison does not see it", name, seen)
				}
				if name == "initialScale" { // Knative's reconciler applies it, not its autoscaler
					return
				}
				if diff, seen, err = run(2, 200_000, nil, mutate); err != nil {
					t.Fatal(err)
				}
				if diff == "" {
					t.Errorf("Knative with a changed %s passed 200000 steps (%v): the comparison does not see it", name, seen)
				}
			})
		})
	}
}
