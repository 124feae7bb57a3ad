package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds how long a script waits for what should come soon.
const patience = 20 * time.Second

// ports gives each script addresses of its own in $APP, $PROXY and $METRICS: free a moment ago, on
// a loopback address that nothing else uses, so that nothing takes them meanwhile.
func ports(env *testscript.Env) error {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(250), rand.N(250), 1+rand.N(250))
	for _, name := range []string{"APP", "PROXY", "METRICS"} {
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

// get is the script command "get CODE ADDRESS/PATH": it asks until the answer is CODE, and prints
// its body.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get CODE ADDRESS/PATH")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		code, body, err := fetch(client, "http://"+args[1])
		if err == nil && code == want {
			_, _ = fmt.Fprint(ts.Stdout(), body)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("get %s: %d %s %v, want %d", args[1], code, body, err, want)
		}
	}
}

func fetch(client *http.Client, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
