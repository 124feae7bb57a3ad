// Command policy-go is a sample policy server in Go: it keeps the mean concurrency at a target,
// with some pods to spare while load rises. Try it:
//
//	go run ./docs/examples/policy-go --listen 127.0.0.1:9090
//	sluice decide --policy grpc --param address=127.0.0.1:9090 --param 'parameters={"target":10,"spare":2}' < observations.jsonl
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-autoscaler/sluice/wire/policy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "policy-go:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing left to do
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("policy-go", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9090", "host:port, or unix:///path")
	if err := flags.Parse(args); err != nil {
		return err
	}
	network, address := "tcp", *listen
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := grpc.NewServer()
	policy.RegisterPolicyServer(s, server{})
	go func() { // GracefulStop makes Serve return
		<-ctx.Done()
		s.GracefulStop()
	}()
	fmt.Fprintln(stdout, "listening on", l.Addr())
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

type server struct {
	policy.UnimplementedPolicyServer
}

// parameters are what users write under the policy's parameters.
type parameters struct {
	Target float64 `json:"target"`
	Spare  float64 `json:"spare"`
}

// memory is what comes back with the next request: the server itself remembers nothing, so it may
// be restarted at any time.
type memory struct {
	Last float64 `json:"last"`
}

// Decide answers ceil(concurrency / target), plus the spare pods while concurrency is higher than
// the last time.
func (server) Decide(_ context.Context, in *policy.DecideRequest) (*policy.DecideResponse, error) {
	p := parameters{Target: 10}
	if in.GetParameters() != "" {
		if err := json.Unmarshal([]byte(in.GetParameters()), &p); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "parameters: %v", err)
		}
	}
	if p.Target <= 0 {
		return nil, status.Errorf(codes.InvalidArgument, "target = %v: want more than 0", p.Target)
	}
	m := memory{Last: math.Inf(1)}
	if len(in.GetState()) > 0 {
		if err := json.Unmarshal(in.GetState(), &m); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "state: %v", err)
		}
	}
	for _, s := range in.GetObservation().GetSignals() {
		if s.GetName() != "concurrency" || s.GetWindow() != 60 || !s.GetKnown() {
			continue
		}
		pods, reason := math.Ceil(s.GetValue()/p.Target), "Steady"
		if s.GetValue() > m.Last {
			pods, reason = pods+p.Spare, "Rising"
		}
		state, err := json.Marshal(memory{Last: s.GetValue()})
		if err != nil {
			return nil, status.Errorf(codes.Internal, "state: %v", err)
		}
		return &policy.DecideResponse{
			Replicas: int32(pods), Valid: true, Reason: reason,
			Message: fmt.Sprintf("%.4g requests at %.4g a pod", s.GetValue(), p.Target),
			Terms:   []*policy.Term{{Name: "concurrency", Value: s.GetValue()}}, State: state,
		}, nil
	}
	return &policy.DecideResponse{Reason: "NoData", Message: "concurrency over 60s is unknown", State: in.GetState()}, nil
}
