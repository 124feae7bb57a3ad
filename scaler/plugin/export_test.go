package plugin

import (
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/wire/policy"
)

// Judge is what becomes of a server's answer.
func Judge(a *policy.DecideResponse, o algorithms.Observation) (algorithms.Decision, error) {
	if err := check(a); err != nil {
		return algorithms.Decision{}, err
	}
	return decision(a, o), nil
}
