package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log"
	"testing"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/sluice-autoscaler/sluice/internal/cli"
)

// Whoever logs in the process, a line has the one format.
func TestOneLogFormat(t *testing.T) {
	var out bytes.Buffer
	l := cli.Logging{Level: "info", Format: "json"}
	routeLogs(l.New(&out))
	log.Print("from the standard library")
	klog.ErrorS(errors.New("gone"), "from the Kubernetes client", "pod", "web-1")
	klog.Infof("from the Kubernetes client, %s", "unstructured")
	ctrl.Log.WithName("cache").Info("from controller-runtime")
	klog.Flush()
	var messages []string
	for dec := json.NewDecoder(bytes.NewReader(out.Bytes())); dec.More(); {
		var line struct{ Level, Msg string }
		if err := dec.Decode(&line); err != nil {
			t.Fatalf("%v in:\n%s", err, out.String())
		}
		messages = append(messages, line.Level+" "+line.Msg)
	}
	want := []string{
		"INFO from the standard library", "ERROR from the Kubernetes client", "INFO from the Kubernetes client, unstructured",
		"INFO from controller-runtime",
	}
	if len(messages) != len(want) {
		t.Fatalf("messages = %q, want %q", messages, want)
	}
	for i := range want {
		if messages[i] != want[i] {
			t.Errorf("message %d = %q, want %q", i, messages[i], want[i])
		}
	}
}
