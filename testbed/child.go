package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/sluice-autoscaler/sluice/testbed/internal/core"
	"github.com/sluice-autoscaler/sluice/testbed/node"
)

// The names by which the program calls itself, as argument 0.
const (
	initName = "sluice-testbed-init"
	coreName = "sluice-testbed-core"
)

// eventsFD is the descriptor on which init and core inherit the pipe of events.
const eventsFD = 3

// MaybeChild turns the process into a part of the testbed if that is what it was started for, and
// then never returns; in any other process it returns at once. Start runs the program that calls it
// a second time, inside new namespaces, so whatever calls Start calls MaybeChild first thing:
//
//	func TestMain(m *testing.M) {
//		testbed.MaybeChild()
//		os.Exit(m.Run())
//	}
func MaybeChild() {
	node.MaybeShim()
	if len(os.Args) != 2 {
		return
	}
	switch os.Args[0] {
	case initName:
		os.Exit(runInit(os.Args[1]))
	case coreName:
		os.Exit(runCore(os.Args[1]))
	}
}

// runInit is process 1 of the PID namespace. It starts the core and reaps whatever loses its
// parent, so that the core may use os/exec without anybody reaping its children before it does.
// When it ends, the kernel ends all that is left.
func runInit(config string) int {
	log := childLogger()
	core, err := startCore(config)
	if err != nil {
		log.Error("start the core", slog.Any("error", err))
		return 1
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for s := range signals {
			_ = syscall.Kill(core, s.(syscall.Signal)) // gone is fine: wait4 tells
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			log.Error("wait for children", slog.Any("error", err))
			return 1
		case pid == core && status.Signaled():
			log.Error("core was killed", slog.String("signal", status.Signal().String()))
			return 128 + int(status.Signal())
		case pid == core:
			return status.ExitStatus()
		}
	}
}

// startCore gives the namespace its own view of processes and no way to mount into the host's, and
// starts the core.
func startCore(config string) (pid int, err error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return 0, fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return 0, fmt.Errorf("mount /proc: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find own program: %w", err)
	}
	// os.Process is not used: it would want to wait for the core itself.
	pid, err = syscall.ForkExec(self, []string{coreName, config}, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, eventsFD},
	})
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", self, err)
	}
	// Only the core's copy is to hold the pipe open, so that its end is seen.
	return pid, syscall.Close(eventsFD)
}

// runCore runs the cluster until SIGTERM.
func runCore(path string) int {
	log := childLogger()
	defer func() {
		if r := recover(); r != nil {
			log.Error("core panicked", slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
			os.Exit(2)
		}
	}()
	syscall.CloseOnExec(eventsFD)
	events := os.NewFile(eventsFD, "events")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var cfg core.Config
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &cfg)
	}
	if err != nil {
		log.Error("read configuration", slog.Any("error", err))
		return 1
	}
	if err := core.Run(ctx, cfg, events, log); err != nil {
		log.Error("core failed", slog.Any("error", err))
		return 1
	}
	return 0
}

func childLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
