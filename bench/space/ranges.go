package space

// DefaultRanges are the ranges that are searched for a well-known policy when none are given; nil
// for others. They cover what each policy's own documentation calls sensible, and some more.
// Targets are shares of what a pod takes at a time.
func DefaultRanges(policy string) []string {
	return map[string][]string{
		"kpa": {
			"target=20%..110%", "stableWindow=6s..10m:log", "panicWindowPercentage=5..50", "panicThresholdPercentage=110..1000:log",
			"scaleDownDelay=0s|15s|30s|1m|2m|5m|10m|20m", "maxScaleDownRate=1.1..10:log",
		},
		"hpa": {
			"target=20%..110%", "tolerance=0.0..0.3", "guard.behavior.scaleDown.stabilizationWindowSeconds=0|15|30|60|120|300|600|1200",
			"guard.scaleToZero.after=1m..1h:log",
		},
		"keda": {
			"target=20%..110%", "pollingInterval=1..60:log", "cooldownPeriod=0|15|30|60|120|300|600|1200",
			"advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds=0|15|30|60|120|300|600|1200",
		},
		"target": {
			"target=20%..110%", "window=2s..10m:log", "tolerance=0.0..0.3", "stabilizationWindow=0s|15s|30s|1m|2m|5m|10m|20m",
			"scaleOutPoints=1..5:whole",
		},
		"staffing": {"waitProbability=0.001..0.5:log", "window=5s..10m:log", "coldStartCost=1..3600:log"},
		"pid":      {"target=20%..110%", "window=2s..5m:log", "kp=0.05..1.0", "ki=0.001..0.5:log", "kd=0|5|15|30|60"},
		"step":     {"window=10s..5m:log", "scaleInCooldown=15s..20m:log", "scaleOutCooldown=0s|15s|30s|1m|5m", "estimatedInstanceWarmup=5s..5m:log"},
		"lookahead": {
			"violationBudget=0.0005..0.05:log", "waitGoal=50ms..1s:log", "halfLife=1h..7d:log", "budgetWindow=5m..1d:log", "idleReference=10s..10m:log",
		},
		"seasonal":  {"target=20%..110%", "window=5s..10m:log", "alpha=0.05..0.8", "gamma=0.05..0.8", "harmonics=2..12:whole"},
		"histogram": {"target=20%..110%", "window=5s..10m:log", "coldStartCost=10..10000:log", "margin=0.0..0.5", "tail=0.9..0.999", "guard.scaleToZero.after=1s|15s|1m|5m|20m|1h"},
		"portfolio": {"target=20%..110%", "violationBudget=0.0005..0.05:log", "coldStartCost=1..3600:log", "memory=1h..7d:log"},
		"fixed":     {"replicas=1..100:log"},
	}[policy]
}
