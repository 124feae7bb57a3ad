// Package scenarios holds the scenarios that come with the bench, as YAML files; each says what differs from sim.DefaultScenario.
package scenarios

import "embed"

// Files are the scenarios, NAME.yaml each.
//
//go:embed *.yaml
var Files embed.FS
