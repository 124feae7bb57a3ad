package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-autoscaler/sluice/internal/sampleapp"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sluice": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata/script", UpdateScripts: os.Getenv("UPDATE_GOLDEN") != "", Setup: app})
}

// app gives each script a server to send load to, at $APP.
func app(env *testscript.Env) error {
	server := httptest.NewServer(sampleapp.Handler())
	env.Defer(server.Close)
	env.Setenv("APP", fmt.Sprintf("http://%s", server.Listener.Addr()))
	return nil
}
