package lookahead

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sluice-autoscaler/sluice/algorithms/demand"
	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/workfunction"
)

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage {
	s := p.state
	s.Demand, s.Idle, s.WorkFunction = p.estimator.State, p.idleTimes.State(), p.workFunction.State()
	s.Near, s.Far = p.near.snapshot(), p.far.snapshot()
	if p.daily != nil {
		d := p.daily.State()
		s.Daily = &d
	}
	return memory.Save("lookahead", version, s)
}

// Restore puts back a Snapshot. A season is left out where either side has none.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("lookahead", version, raw)
	if err != nil {
		return err
	}
	if len(s.Near.Issued) > maxIssued || len(s.Far.Issued) > maxIssued || s.Near.Best < 0 || s.Near.Best >= candidates || s.Far.Best < 0 || s.Far.Best >= candidates {
		return fmt.Errorf("read lookahead snapshot: %d and %d promises: want at most %d", len(s.Near.Issued), len(s.Far.Issued), maxIssued)
	}
	for _, l := range [][]issued{s.Near.Issued, s.Far.Issued} {
		for _, q := range l {
			if q.Best < 0 || q.Best >= candidates {
				return fmt.Errorf("read lookahead snapshot: candidate %d: want 0–%d", q.Best, candidates-1)
			}
		}
	}
	var (
		near, far horizon
		idleTimes keepalive.Idle
	)
	if err := idleTimes.Load(s.Idle); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	if err := near.restore(s.Near); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	if err := far.restore(s.Far); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	if err := s.Clock.validate(); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	var workFunction workfunction.Function
	if err := workFunction.Load(s.WorkFunction); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	if p.daily != nil && s.Daily != nil {
		if err := p.daily.Load(*s.Daily); err != nil {
			return fmt.Errorf("read lookahead snapshot: %w", err)
		}
	}
	p.near, p.far, p.estimator.State, p.idleTimes, p.workFunction, p.history = near, far, s.Demand, idleTimes, workFunction, history{}
	s.Demand, s.Idle, s.WorkFunction = demand.State{}, keepalive.IdleState{}, nil
	s.Daily, s.Near, s.Far = nil, horizonState{}, horizonState{}
	p.state = s
	return nil
}

func (b *residuals) snapshot() residualsState {
	return residualsState{Tail: b.tail.State(), Plain: b.plain.State()}
}

func (b *residuals) restore(s residualsState) error {
	return errors.Join(b.tail.Load(s.Tail), b.plain.Load(s.Plain))
}

func (h *horizon) snapshot() horizonState {
	s := h.state
	s.Issued = append([]issued(nil), s.Issued...)
	s.All, s.At = h.all.snapshot(), map[int]residualsState{}
	for i, b := range h.byCategory {
		if b != nil {
			s.At[i] = b.snapshot()
		}
	}
	return s
}

func (h *horizon) restore(s horizonState) error {
	if err := h.all.restore(s.All); err != nil {
		return err
	}
	for i, b := range s.At {
		if i < 0 || i >= categories {
			return fmt.Errorf("level %d: want 0–%d", i, categories-1)
		}
		h.byCategory[i] = new(residuals)
		if err := h.byCategory[i].restore(b); err != nil {
			return err
		}
	}
	s.All, s.At = residualsState{}, nil
	h.state = s
	return nil
}
