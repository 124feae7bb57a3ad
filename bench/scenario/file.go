package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Load reads a standard scenario, or a YAML file, and lays the fields of over, by their JSON names,
// over it.
func Load(name string, over map[string]json.RawMessage) (Scenario, error) {
	var err error
	raw, ok := Standard(name)
	if !ok {
		raw, err = os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("neither a file nor one of %s", strings.Join(Names(), ", "))
		}
	}
	if err != nil {
		return Scenario{}, err
	}
	if raw, err = yaml.YAMLToJSONStrict(raw); err != nil {
		return Scenario{}, err
	}
	if raw, err = measured(raw); err != nil {
		return Scenario{}, err
	}
	s, err := Parse(Default(), raw)
	if err != nil || len(over) == 0 {
		return s, err
	}
	patch, err := json.Marshal(over)
	if err == nil {
		patch, err = measured(patch)
	}
	if err != nil {
		return s, fmt.Errorf("flags: %w", err)
	}
	return Parse(s, patch)
}

// mostMeasured bounds the times of one file.
const mostMeasured = 100_000

// measured puts the times of files in the place of "empirical:@FILE": a line has a duration or a
// number of seconds.
func measured(raw []byte) ([]byte, error) {
	var errs []error
	out := regexp.MustCompile(`"empirical:@[^"]+"`).ReplaceAllFunc(raw, func(m []byte) []byte {
		file := strings.TrimSuffix(strings.TrimPrefix(string(m), `"empirical:@`), `"`)
		text, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("empirical: %w", err))
			return m
		}
		var times []string
		for n, line := range strings.Split(string(text), "\n") {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			d, err := time.ParseDuration(line)
			if s, numErr := strconv.ParseFloat(line, 64); numErr == nil && s >= 0 && s < 1e9 {
				d, err = time.Duration(s*float64(time.Second)), nil
			}
			if err != nil || len(times) == mostMeasured {
				errs = append(errs, fmt.Errorf("empirical: %s: line %d: %q: want a duration such as 120ms, or seconds, and at most %d of them", file, n+1, line, mostMeasured))
				return m
			}
			times = append(times, d.String())
		}
		return []byte(`"empirical:` + strings.Join(times, ",") + `"`)
	})
	return out, errors.Join(errs...)
}
