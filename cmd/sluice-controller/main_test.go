package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/scaler/process/fakeplatform"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sluice-controller": main,
		"fakeplatform": func() {
			cli.Main("fakeplatform", func(ctx context.Context, args []string, stdout, _ io.Writer) error {
				return fakeplatform.Run(ctx, args, stdout)
			})
		},
	})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: os.Getenv("UPDATE_GOLDEN") != "", Setup: ports,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await},
	})
}

// scriptPatience bounds how long a script waits for what should come soon.
const scriptPatience = 30 * time.Second

// ports gives each script addresses of its own in $PLATFORM and $METRICS, on a loopback address
// that nothing else uses.
func ports(env *testscript.Env) error {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(250), rand.N(250), 1+rand.N(250))
	for _, name := range []string{"PLATFORM", "METRICS"} {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			return err
		}
		env.Setenv(name, l.Addr().String())
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// await is the script command "await ADDRESS/PATH PATTERN": it asks until the answer's body
// matches.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await ADDRESS/PATH PATTERN")
	}
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(scriptPatience); ; time.Sleep(5 * time.Millisecond) {
		text := ""
		resp, err := client.Get("http://" + args[0])
		if err == nil {
			var body []byte
			body, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			text = string(body)
		}
		if err == nil && want.MatchString(text) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("await %s: %q, %v, want %s", args[0], text, err, args[1])
		}
	}
}
