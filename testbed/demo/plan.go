package demo

import (
	"fmt"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/load"
)

// act is one of the demo's halves: a plan of load and the replica counts it has to lead to.
type act struct {
	name   string
	blocks []block
	// milestones must be reached one after another.
	milestones []milestone
}

// block is load by plan, and then, if until is set, a trickle until something has happened.
type block struct {
	parts []part
	until *until
}

// part is a named stretch of load.
type part struct {
	name  string
	shape load.Shape
}

// until waits for a state that the load before is to lead to.
type until struct {
	name string
	// rate is sent meanwhile, in requests per second; 0 sends nothing.
	rate float64
	// done tells the state by a sample that was taken after the wait began.
	done func(Sample) bool
	// timeout is when the wait is given up; the milestones tell what that means.
	timeout time.Duration
}

// milestone is a state that must be seen.
type milestone struct {
	what string
	seen func(Sample) bool
}

// The load is made of requests of requestMillis; at peakRate they need peakRate × 0.2 s = 50 at
// once, 5 pods at the 10 per pod that deploy/examples ask for.
const (
	requestMillis = 200
	peakRate      = 250
	wantedPods    = 4
)

func asleep(s Sample) bool { return is(s.Replicas, 0) && is(s.Ready, 0) }

func awake(s Sample) bool { return s.Ready != nil && *s.Ready >= 1 }

func scaledOut(s Sample) bool { return s.Ready != nil && *s.Ready >= wantedPods }

func single(s Sample) bool { return is(s.Replicas, 1) && is(s.Ready, 1) }

func is(n *int, want int) bool { return n != nil && *n == want }

// autoscalerAct drives an Autoscaler from sleep to several pods and back, twice over zero.
func autoscalerAct() act {
	const second = time.Second
	return act{
		name: "Autoscaler",
		blocks: []block{
			{until: &until{name: "no requests: falls asleep", done: asleep, timeout: 60 * second}},
			{
				parts: []part{
					{"asleep", load.Idle(3 * second)},
					{"first request, at zero", load.Sequence(load.Burst(1, second/2), load.Idle(5*second/2))},
					{"trickle", load.Constant(5, 5*second)},
					{"burst of 100", load.Burst(100, second)},
					{"trickle", load.Constant(5, 5*second)},
					{fmt.Sprintf("ramp to %d/s", peakRate), load.Ramp(5, peakRate, 22*second)},
					{fmt.Sprintf("%d/s", peakRate), load.Constant(peakRate, 12*second)},
					{"ramp down", load.Ramp(peakRate, 10, 6*second)},
				},
				until: &until{name: "idle gap: to zero", done: asleep, timeout: 75 * second},
			},
			{
				parts: []part{
					{"asleep", load.Idle(3 * second)},
					{"burst of 80, at zero", load.Burst(80, second)},
					{"20/s", load.Constant(20, 6*second)},
				},
				until: &until{name: "idle: to zero", done: asleep, timeout: 75 * second},
			},
		},
		milestones: []milestone{
			{"0 replicas while nothing is asked for", asleep},
			{"woken by the first request", awake},
			{fmt.Sprintf("at least %d pods ready at the peak", wantedPods), scaledOut},
			{"0 replicas in the idle gap", asleep},
			{"woken again, by a burst", awake},
			{"0 replicas at the end", asleep},
		},
	}
}

// hpaAct drives a stock HPA on Sluice's metric from one pod to several and back.
func hpaAct() act {
	const second = time.Second
	return act{
		name: "stock HPA",
		blocks: []block{{
			parts: []part{
				{"trickle", load.Constant(5, 4*second)},
				{fmt.Sprintf("ramp to %d/s", peakRate), load.Ramp(5, peakRate, 35*second)},
				{fmt.Sprintf("%d/s", peakRate), load.Constant(peakRate, 20*second)},
				{"ramp down", load.Ramp(peakRate, 5, 5*second)},
			},
			until: &until{name: "trickle: back to one", rate: 5, done: single, timeout: 90 * second},
		}},
		milestones: []milestone{
			{"1 pod at first", single},
			{fmt.Sprintf("at least %d pods ready at the peak", wantedPods), scaledOut},
			{"back to 1 pod", single},
		},
	}
}

// shape is the whole of the block's planned load.
func (b block) shape() load.Shape {
	var s load.Shape
	for _, p := range b.parts {
		s = append(s, p.shape...)
	}
	return s
}

// at names the part at an instant since the block's start.
func (b block) at(t time.Duration) string {
	name := ""
	for _, p := range b.parts {
		name = p.name
		if t < p.shape.Length() {
			return name
		}
		t -= p.shape.Length()
	}
	return name
}

// reach finds when each milestone was reached: the first sample that shows it, from the one that
// showed the milestone before. The rest of them, from the first that was missed, are not reached.
func reach(milestones []milestone, samples []Sample) []Milestone {
	all := make([]Milestone, len(milestones))
	next := 0
	for i := range all {
		all[i].What = milestones[i].what
	}
	for _, s := range samples {
		for next < len(milestones) && milestones[next].seen(s) {
			all[next].At, all[next].Reached = s.At, true
			next++
		}
	}
	return all
}
