package recording

import (
	"testing"
	"time"
)

func TestDecimal(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "1": 1e9, "1.": 1e9, ".5": 5e8, "0.000000001": 1, "123.456789": 123456789000, "1700000000.25": 1700000000250000000, "0.1": 1e8,
	} {
		if got, ok := decimal([]byte(text)); !ok || got != want {
			t.Errorf("decimal(%q) = %v, %v, want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", ".", "1.2.3", "-1", "1e3", " 1", "0.0000000001", "99999999999", "9999999999999999999", "9100000000"} {
		if got, ok := decimal([]byte(text)); ok {
			t.Errorf("decimal(%q) = %v, want none", text, got)
		}
	}
}
