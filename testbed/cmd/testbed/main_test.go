package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
)

func TestWrongUse(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "a command is missing"},
		{"unknown command", []string{"start"}, `"start"`},
		{"unknown flag", []string{"up", "--no-such-flag"}, "no-such-flag"},
		{"image without program", []string{"up", "--image", "demo/app"}, "NAME=PROGRAM"},
		{"argument too many", []string{"down", "now"}, `"now"`},
		{"exec without command", []string{"exec", "--pod", "default/web"}, "needs a command"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := run(t.Context(), tc.args, io.Discard, io.Discard)
			if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("run(%q) = %v, want a usage error with %q", tc.args, err, tc.want)
			}
			if got := exit(err); got != 2 {
				t.Errorf("exit code = %d, want 2", got)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"help"}, &out, io.Discard); err != nil || out.String() != usage {
		t.Errorf("help = %q, %v, want the usage", out.String(), err)
	}
	if err := run(t.Context(), []string{"up", "--help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("up --help = %v, want flag.ErrHelp", err)
	}
}
