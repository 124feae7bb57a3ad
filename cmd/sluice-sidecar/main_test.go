package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-autoscaler/sluice/internal/sampleapp"
	"github.com/sluice-autoscaler/sluice/internal/serve"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sluice-sidecar": main,
		"app": func() { // the sample app, at $APP
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			cfg := sampleapp.Default()
			cfg.Listen = os.Getenv("APP")
			var g serve.Group
			g.Add(sampleapp.Service(cfg))
			if err := g.Run(ctx); err != nil {
				panic(err)
			}
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_GOLDEN") != "",
		Setup:         ports,
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"get": get},
	})
}
