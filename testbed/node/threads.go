package node

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs fn on an operating system thread that is thrown away afterwards, so fn may move
// it into other namespaces. The process's main thread is never used: what /proc says of the process
// is what it says of that thread, and others (nsenter, the testbed's exec command) read the
// namespaces there.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Held while fn runs elsewhere, so that fn cannot land on it.
			done <- onOwnThread(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- fn()
		// No unlock: the thread ends with this goroutine, and its namespaces with it.
	}()
	return <-done
}
