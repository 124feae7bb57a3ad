// Package memory writes and reads the snapshots of policies: JSON with a version. A snapshot of
// another version is refused as a whole. Its functions are safe for concurrent use.
package memory

import (
	"encoding/json"
	"fmt"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// envelope is the form of a snapshot.
type envelope struct {
	Policy  string          `json:"policy"`
	Version int             `json:"version"`
	State   json.RawMessage `json:"state"`
}

// Save returns the named policy's state as JSON under that version, null when it cannot be written
// (a NaN in it).
func Save(policy string, version int, state any) json.RawMessage {
	b, err := json.Marshal(state)
	if err != nil {
		return json.RawMessage("null")
	}
	out, err := json.Marshal(envelope{Policy: policy, Version: version, State: b})
	if err != nil {
		return json.RawMessage("null")
	}
	return out
}

// Load reads what Save wrote for the named policy. A snapshot of another policy or version, unknown
// fields and more than one value are errors.
func Load[T any](policy string, version int, raw json.RawMessage) (T, error) {
	var (
		e    envelope
		s, z T
	)
	if err := algorithms.Strict(raw, &e); err != nil {
		return z, fmt.Errorf("read %s snapshot: %w", policy, err)
	}
	if e.Policy != policy {
		return z, fmt.Errorf("snapshot is of policy %q: want %s", e.Policy, policy)
	}
	if e.Version != version {
		return z, fmt.Errorf("%s snapshot has version %d: want %d", policy, e.Version, version)
	}
	if err := algorithms.Strict(e.State, &s); err != nil {
		return z, fmt.Errorf("read %s snapshot: %w", policy, err)
	}
	return s, nil
}
