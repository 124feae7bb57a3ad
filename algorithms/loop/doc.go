// Package loop is everything between what was seen of a workload and what is to be done: data time,
// start-up times, policy, guard, hand-over, settling, mode. It is pure: no clock, no I/O, no
// goroutine. The scaler, the simulator and sluice decide are shells around it.
package loop
