package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/internal/cli"
)

func TestStatus(t *testing.T) {
	bad := errors.New("port taken")
	cases := []struct {
		name string
		err  error
		code int
		want string
	}{
		{name: "success", code: 0},
		{name: "failure", err: bad, code: 1, want: "sluice-x: port taken\n"},
		{name: "usage", err: cli.Usage(bad), code: 2, want: "sluice-x: port taken: see --help\n"},
		{name: "wrapped usage", err: fmt.Errorf("run: %w", cli.Usage(bad)), code: 2, want: "sluice-x: run: port taken: see --help\n"},
		{name: "no fault", err: cli.Usage(nil), code: 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var stderr strings.Builder
			if code := cli.Status("sluice-x", c.err, &stderr); code != c.code || stderr.String() != c.want {
				t.Errorf("Status(%v) = %d, %q, want %d, %q", c.err, code, stderr.String(), c.code, c.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	version := "sluice-x " + cli.Version() + "\n"
	cases := []struct {
		name     string
		args     []string
		answered bool
		usage    bool
		stdout   string
	}{
		{name: "flags", args: []string{"--size=3"}},
		{name: "help", args: []string{"--help"}, answered: true, stdout: "usage:\n      --size int   how much\n      --version    print the version and exit\n"},
		{name: "version", args: []string{"--version"}, answered: true, stdout: version},
		{name: "version before arguments", args: []string{"--version", "extra"}, answered: true, stdout: version},
		{name: "unknown flag", args: []string{"--sise=3"}, usage: true},
		{name: "argument", args: []string{"extra"}, usage: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
			flags.Int("size", 0, "how much")
			var stdout strings.Builder
			answered, err := cli.Parse("sluice-x", "usage:\n", flags, c.args, &stdout)
			if answered != c.answered || errors.Is(err, cli.ErrUsage) != c.usage || (err != nil) != c.usage || stdout.String() != c.stdout {
				t.Errorf("Parse(%q) = %v, %v with stdout %q, want %v, a usage error: %v, %q", c.args, answered, err, stdout.String(), c.answered, c.usage, c.stdout)
			}
		})
	}
}

func TestLogging(t *testing.T) {
	cases := []struct {
		name   string
		args   []string
		faults string
		want   []string
	}{
		{name: "default", want: []string{"level=INFO msg=scaled replicas=3\n"}},
		{name: "json", args: []string{"--log-format=json"}, want: []string{`"level":"INFO","msg":"scaled","replicas":3}` + "\n"}},
		{name: "warnings only", args: []string{"--log-level=warn"}},
		{name: "any case", args: []string{"--log-level=INFO"}, want: []string{"level=INFO msg=scaled replicas=3\n"}},
		{name: "both wrong", args: []string{"--log-level=loud", "--log-format=xml"}, faults: "log-level = \"loud\": want debug, info, warn or error\nlog-format = \"xml\": want text or json"},
		{name: "an offset is no level", args: []string{"--log-level=info+2"}, faults: `log-level = "info+2": want debug, info, warn or error`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := cli.DefaultLogging()
			flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
			l.Bind(flags)
			if _, err := cli.Parse("x", "", flags, c.args, io.Discard); err != nil {
				t.Fatal(err)
			}
			err := l.Validate()
			if err != nil || c.faults != "" {
				if err == nil || err.Error() != c.faults {
					t.Errorf("Validate() = %v, want %s", err, c.faults)
				}
				return
			}
			var out bytes.Buffer
			l.New(&out).Info("scaled", slog.Int("replicas", 3))
			if len(c.want) == 0 && out.Len() > 0 {
				t.Errorf("wrote %q, want nothing", out.String())
			}
			for _, w := range c.want {
				if !strings.HasSuffix(out.String(), w) {
					t.Errorf("wrote %q, want it to end in %q", out.String(), w)
				}
			}
		})
	}
}
