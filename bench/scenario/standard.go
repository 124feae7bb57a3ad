// Package scenario describes a run of the bench, except for its arrivals and its policy: service
// times, start-up times, routing, scraping, bounds and the SLO. The standard scenarios are YAML
// files in this folder; each says what differs from Default.
package scenario

import (
	"embed"
	"slices"
	"strings"
)

//go:embed *.yaml
var standard embed.FS

// Names lists the standard scenarios.
func Names() []string {
	entries, err := standard.ReadDir(".")
	if err != nil {
		return nil // the folder is part of the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Standard returns the YAML text of a standard scenario; ok is false when there is none of that
// name.
func Standard(name string) (yaml []byte, ok bool) {
	if !slices.Contains(Names(), name) {
		return nil, false
	}
	yaml, err := standard.ReadFile(name + ".yaml")
	return yaml, err == nil
}
