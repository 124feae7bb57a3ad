package loop

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Learns names the signals whose past the policy learns from; none when it learns from none.
func (l *Loop) Learns() []string { return l.policy.Learns() }

// Learn gives the policy the past of its workload, in the order of time and before the first Step
// that follows. An error leaves the loop as it was.
func (l *Loop) Learn(history []algorithms.Sample) error { return l.policy.Learn(history) }

// Inherit takes over the memory of the loop that this one replaces, after a change of the Spec. An
// error says that the policy starts afresh, because it is of another kind; all else is taken over.
func (l *Loop) Inherit(old *Loop) error {
	l.inheritMemory(old)
	if err := l.policy.Restore(old.policy.Snapshot()); err != nil {
		return errors.Join(err, l.policy.RestoreRules(old.policy.Snapshot()))
	}
	return nil
}

// InheritRules takes over all of the memory of the loop that this one replaces but the policy's.
func (l *Loop) InheritRules(old *Loop) error {
	l.inheritMemory(old)
	return l.policy.RestoreRules(old.policy.Snapshot())
}

func (l *Loop) inheritMemory(old *Loop) {
	l.memory, l.clock, l.lastStep, l.began = old.memory, old.clock, old.lastStep, old.began
}

// snapshot is a loop's memory, as it is serialized.
type snapshot struct {
	Version     int             `json:"version"`
	Handover    handover        `json:"handover,omitzero"`
	DataTime    time.Time       `json:"dataTime,omitzero"`
	ScaledAt    time.Time       `json:"scaledAt,omitzero"`
	ActiveSince time.Time       `json:"activeSince,omitzero"`
	WantedSince time.Time       `json:"wantedSince,omitzero"`
	Starts      []time.Duration `json:"starts,omitempty"`
	Limit       float64         `json:"limit,omitempty"`
	Policy      json.RawMessage `json:"policy"`
}

// Snapshot returns the memory of loop and policy as versioned JSON, for Restore.
func (l *Loop) Snapshot() json.RawMessage {
	m := &l.memory
	b, err := json.Marshal(snapshot{
		Version: 1, Handover: m.handover, DataTime: m.dataTime, ScaledAt: m.scaledAt, ActiveSince: m.activeSince, WantedSince: m.wantedSince,
		Starts: m.starts.List(), Limit: m.limit, Policy: l.policy.Snapshot(),
	})
	if err != nil { // only if the policy's is no JSON
		return nil
	}
	return b
}

// Restore puts back what Snapshot gave. An error leaves the loop as it was.
func (l *Loop) Restore(raw json.RawMessage) error {
	var s snapshot
	if err := algorithms.Strict(raw, &s); err != nil {
		return fmt.Errorf("read loop snapshot: %w", err)
	}
	if s.Version != 1 {
		return fmt.Errorf("loop snapshot has version %d: want 1", s.Version)
	}
	if !algorithms.Finite(s.Limit) || s.Limit < 0 {
		return fmt.Errorf("loop snapshot: limit = %v: want a finite number ≥ 0", s.Limit)
	}
	switch s.Handover.Phase {
	case "", Awake, GoingToSleep, Asleep, Waking:
	default:
		return fmt.Errorf("loop snapshot: handover.phase = %q: want a phase", s.Handover.Phase)
	}
	if err := l.policy.Restore(s.Policy); err != nil {
		return err
	}
	m := memory{handover: s.Handover, dataTime: s.DataTime, scaledAt: s.ScaledAt, activeSince: s.ActiveSince, wantedSince: s.WantedSince, limit: s.Limit}
	for _, d := range s.Starts {
		m.starts.Add(d)
	}
	l.memory = m
	return nil
}
