package observe

import (
	"syscall"
	"time"
	"unsafe"
)

// threadTime is the CPU time of the calling thread, which its goroutine has locked. Getrusage would tell it to the last tick only.
func threadTime() time.Duration {
	const ofThread = 3 // CLOCK_THREAD_CPUTIME_ID
	var ts syscall.Timespec
	if _, _, e := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, ofThread, uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		return 0
	}
	return time.Duration(ts.Nano())
}
