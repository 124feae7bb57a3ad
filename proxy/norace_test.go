//go:build !race

package proxy_test

// raced says that the race detector is on.
const raced = false
