package scaler

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// WorkloadSpec says how one workload is scaled.
type WorkloadSpec struct {
	Ref  loop.Ref  `json:"ref"`
	Spec loop.Spec `json:"spec"`
}

// ParseSpecs reads a JSON list of WorkloadSpecs for these drivers. It takes all or none: an error
// names each fault by its place in the list, as far as the JSON can be read, and its field.
func ParseSpecs(raw []byte, drivers []string, c loop.Catalog, t loop.Timing) ([]WorkloadSpec, error) {
	var entries []json.RawMessage
	if err := algorithms.Strict(raw, &entries); err != nil {
		return nil, fmt.Errorf("want a list of workloads: %w", err)
	}
	if entries == nil { // [] is a list; a file that is being written is not
		return nil, errors.New("want a list of workloads, [] for none")
	}
	var errs []error
	list := make([]WorkloadSpec, len(entries))
	first := make(map[loop.Ref]int, len(entries))
	for i := range entries {
		w := &list[i]
		if err := algorithms.Strict(entries[i], w); err != nil {
			errs = append(errs, fmt.Errorf("[%d]: %w", i, err))
			continue
		}
		if j, twice := first[w.Ref]; twice {
			errs = append(errs, fmt.Errorf("[%d].ref is that of [%d]: want each workload once", i, j))
			continue
		}
		first[w.Ref] = i
		for _, err := range w.validate(drivers, c, t) {
			errs = append(errs, fmt.Errorf("[%d].%w", i, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return list, nil
}

// validate reports every fault, each beginning with its field. A policy that cannot be made yet is
// none.
func (w *WorkloadSpec) validate(drivers []string, c loop.Catalog, t loop.Timing) []error {
	var errs []error
	if !slices.Contains(drivers, w.Ref.Driver) {
		errs = append(errs, fmt.Errorf("ref.driver = %q: want one of %q", w.Ref.Driver, drivers))
	}
	if w.Ref.Kind == "" || w.Ref.Name == "" {
		errs = append(errs, fmt.Errorf("ref.kind = %q, ref.name = %q: want both", w.Ref.Kind, w.Ref.Name))
	}
	l, err := loop.New(w.Spec, c, t)
	switch {
	case err == nil:
		l.Close()
	case errors.Is(err, catalog.ErrTemporary):
	default:
		errs = append(errs, flatten(err)...)
	}
	return errs
}

// flatten lists what errors.Join has joined.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, flatten(e)...)
	}
	return errs
}
