//go:build race

package proxy_test

// raced says that the race detector is on, under which sync.Pool forgets on purpose.
const raced = true
