package core

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
	"github.com/sluice-autoscaler/sluice/testbed/node"
)

// startNode runs the node agent in a goroutine. An agent that fails ends the stack. The returned
// function stops it, with all pods, and returns when that is done.
func (s *stack) startNode(ctx context.Context, f files, config *rest.Config) (stop func(), err error) {
	dir := filepath.Join(s.cfg.Dir, NodeDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the node's directory: %w", err)
	}
	agent := node.Config{
		Rest:        config,
		NodeName:    nodeName,
		NodeIP:      network.Node(),
		PodCIDR:     network.Pods(),
		Bridge:      network.Bridge,
		Gateway:     network.Node(),
		Images:      s.cfg.Images,
		Dir:         dir,
		Logger:      s.log.With(slog.String("component", "node")),
		ServingCert: f.nodeServing,
		ClientCA:    f.pool,

		CrashBackoff: s.cfg.CrashBackoff,
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := node.Run(ctx, agent); err != nil && ctx.Err() == nil {
			s.cancel(fmt.Errorf("run the node agent: %w", err))
		}
	}()
	return func() {
		cancel()
		<-done
		s.log.Info("stopped", slog.String("component", "node"))
	}, nil
}
