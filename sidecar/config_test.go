package sidecar_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/sidecar"
)

func TestValidate(t *testing.T) {
	cases := []struct {
		name string
		args string
		want []string // faults, in order
	}{
		{name: "the defaults"},
		{name: "everything at its lowest", args: "--listen=:0 --metrics-listen=:0 --app=[::1]:1 --concurrency-limit=0 --queue-limit=0 --queue-timeout=0 --lame-duck=0 --drain=0 --drain-path= --max-header-bytes=1024"},
		{
			name: "every fault at once",
			args: "--listen=8012 --metrics-listen=:http --app=:0 --app-ready-path=up --app-ready-grpc --app-dial-timeout=0 --app-idle-timeout=-1s --queue-timeout=-1s --lame-duck=-1s --drain=-1s " +
				"--header-timeout=0 --idle-timeout=0 --response-timeout=-1s --request-timeout=-1s --tls-cert=x --threads=-1 --concurrency-limit=-1 --queue-limit=-2 --max-header-bytes=10 --drain-path=/metrics --ignore-path=x --ignore-agent= --log-level=loud",
			want: []string{
				`listen = "8012": want host:port with a port of 0–65535`,
				`metrics-listen = ":http": want host:port with a port of 0–65535`,
				`app = ":0": want a host and a port of 1–65535`,
				`app-dial-timeout = 0s: want > 0`,
				`app-idle-timeout = -1s: want > 0`,
				`queue-timeout = -1s: want ≥ 0`,
				`lame-duck = -1s: want ≥ 0`,
				`drain = -1s: want ≥ 0`,
				`header-timeout = 0s: want > 0`,
				`idle-timeout = 0s: want > 0`,
				`response-timeout = -1s: want ≥ 0`,
				`request-timeout = -1s: want ≥ 0`,
				`concurrency-limit = -1: want ≥ 0 (requests)`,
				`queue-limit = -2: want ≥ 0 (requests)`,
				`tls-cert = "x", tls-key = "": want both or none`,
				`threads = -1: want ≥ 0`,
				`max-header-bytes = 10: want 1024–16777216 (bytes)`,
				`app-ready-path = "up": want a path that begins with /`,
				`app-ready-path = "up", app-ready-grpc = true: want one of both`,
				`drain-path = "/metrics": taken`,
				`ignore-path = "x": want a path that begins with /`,
				`ignore-agent = "": want a beginning of a User-Agent; this would be every one`,
				`log-level = "loud": want debug, info, warn or error`,
			},
		},
		{name: "gRPC health", args: "--app-ready-grpc --app-ready-grpc-service=shop.Cart"},
		{
			name: "a gRPC service that nobody asks for", args: "--app-ready-grpc-service=shop.Cart",
			want: []string{`app-ready-grpc-service = "shop.Cart": want it with app-ready-grpc only`},
		},
		{
			name: "a gRPC service of odd bytes", args: "--app-ready-grpc --app-ready-grpc-service=\xff",
			want: []string{`app-ready-grpc-service = "\xff": want UTF-8`},
		},
		{name: "a socket", args: "--app=unix:/run/app.sock"},
		{name: "a socket of no absolute path", args: "--app=unix:app.sock", want: []string{`app = "unix:app.sock": want unix: and an absolute path`}},
		{name: "a drain token for no path", args: "--drain-path= --drain-token-file=/token", want: []string{`drain-token-file = "/token": want it with a drain-path only`}},
		{name: "a drain path that no request can have", args: "--drain-path=/a{b}", want: []string{`drain-path = "/a{b}": want a path that begins with /, without ?, #, braces and spaces`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := sidecar.Default()
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			cfg.Bind(flags)
			if err := flags.Parse(strings.Fields(c.args)); err != nil {
				t.Fatal(err)
			}
			var got []string
			if err := cfg.Validate(); err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("faults (-want +got):\n%s", d)
			}
		})
	}
}
