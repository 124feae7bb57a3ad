// Package node is a small stand-in for a kubelet: it registers one Node with a real API server and
// runs the containers of the pods bound to it as local processes, each pod in a network namespace
// of its own.
//
// What it promises is the order of things as a kubelet does them (probes, hooks, signals, status
// writes), because that is what end-to-end tests lean on. What it leaves out: cgroups (limits are
// not enforced), image file systems (an image name maps to a local program, run over a
// copy-on-write view of the host's file system), exec and attach through the API, volumes other
// than emptyDir, configMap, secret, downwardAPI and projected.
//
// The process that calls [Run] must be root in namespaces of its own (PID, mount, network), so that
// everything ends with it. Its main function calls [MaybeShim] first: containers are started
// through the program itself.
package node
