package suite

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
)

// Recommended is the policy that Sluice recommends, with its one configuration for all loads. The
// last pod is left to it.
const Recommended = `lookahead:label=lookahead,guard={"scaleToZero":{"after":"1s"}}`

// Spec is a contest by names.
type Spec struct {
	// Loads is dense, sparse or all. Only, unless it is empty, keeps the loads of these files.
	Loads string
	Only  []string
	// Scenarios are names or YAML files, Subjects specifications of policies.
	Scenarios, Subjects []string
}

// Config reads what the names stand for, and reports every fault. Traces is the folder of the
// shared traces.
func (s Spec) Config(policies catalog.Catalog, traces fs.FS) (Config, error) {
	cfg := Config{Traces: traces}
	var errs []error
	sparse, err := Sparse(cfg.Traces)
	errs = append(errs, err)
	switch s.Loads {
	case "dense":
		cfg.Loads = Dense()
	case "sparse":
		cfg.Loads = sparse
	case "all":
		cfg.Loads = slices.Concat(Dense(), sparse)
	default:
		errs = append(errs, fmt.Errorf("--loads = %q: want dense, sparse or all", s.Loads))
	}
	if len(s.Only) > 0 {
		cfg.Loads = slices.DeleteFunc(cfg.Loads, func(l Load) bool { return !slices.Contains(s.Only, l.File) })
		if len(cfg.Loads) == 0 {
			errs = append(errs, fmt.Errorf("--only %v: no load of the suite is of these files", s.Only))
		}
	}
	for _, name := range s.Scenarios {
		one, err := scenario.Load(name, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("--scenario %s: %w", name, err))
		}
		cfg.Scenarios = append(cfg.Scenarios, one)
	}
	if cfg.Classics, err = Classics(policies); err != nil {
		errs = append(errs, err)
	}
	for _, spec := range s.Subjects {
		p, err := Subject(policies, spec, cfg.Classics)
		errs = append(errs, err)
		cfg.Subjects = append(cfg.Subjects, p)
	}
	return cfg, errors.Join(errs...)
}
