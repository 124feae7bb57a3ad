package algorithms

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Duration is a time.Duration that reads and writes JSON as Go's notation ("6s", "1m30s").
type Duration time.Duration

// MarshalJSON writes the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads a string such as "6s". Bare numbers are refused, since their unit would be a
// guess.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("duration %s: want a string with a unit, such as \"6s\"", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("duration %q: want a number with a unit, such as \"6s\"", s)
	}
	*d = Duration(v)
	return nil
}

// Strict decodes raw JSON parameters into v, which holds the defaults. Unknown fields are errors.
// Empty raw leaves v as it is.
func Strict(raw json.RawMessage, v any) error {
	if len(bytes.TrimSpace(raw)) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return fmt.Errorf("more than one JSON value")
	}
	return nil
}

// Finite tells whether v is neither NaN nor infinite.
func Finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// Pods converts a computed pod count to an int, clamped to 0–1,000,000 so that no overflow or NaN
// reaches a decision.
func Pods(v float64) int {
	const most = 1_000_000
	switch {
	case math.IsNaN(v) || v < 0:
		return 0
	case v > most:
		return most
	}
	return int(v)
}
