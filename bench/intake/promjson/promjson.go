// Package promjson reads saved answers of Prometheus' API, series by series.
package promjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Series is a series of a Prometheus' answer.
type Series struct {
	Metric map[string]string    `json:"metric"`
	Values [][2]json.RawMessage `json:"values"`
	Value  [2]json.RawMessage   `json:"value"`
}

// Labels writes a series' labels in the order of their names.
func (r *Series) Labels() string {
	b, err := json.Marshal(r.Metric)
	if err != nil {
		return ""
	}
	return string(b)
}

// Decode finds the list of series in an answer, and hands on one after the other.
func Decode(r io.Reader, each func(*Series) error) error {
	d := json.NewDecoder(r)
	for depth := 0; ; {
		t, err := d.Token()
		if err != nil {
			return fmt.Errorf("it has no list of series: %w", err)
		}
		switch t := t.(type) {
		case json.Delim:
			switch t {
			case '{':
				depth++
			case '}':
				depth--
			case '[':
				for d.More() {
					var one Series
					if err := d.Decode(&one); err != nil {
						return fmt.Errorf("a series of it: %w", err)
					}
					if err := each(&one); err != nil {
						return err
					}
				}
				return nil
			}
		case string:
			if t == "errorType" {
				return errors.New("it is an error of Prometheus, not a result")
			}
		}
		if depth > 100 {
			return errors.New("it is nested too deeply")
		}
	}
}
