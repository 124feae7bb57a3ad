package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/decision"
)

const decideLong = `Ask a policy about observations: JSON Lines from standard input, one decision per line to standard output.
No cluster is needed. Input is read and answered line by line, so it may come from a pipe.

An input line:
  {"t": 30, "current": 10, "ready": 10, "starting": 0, "signals": {"concurrency": {"60s": 1, "6s": 1}}}
  {"t": 32, "current": 3, "ready": 3, "pods": [{"state": "ready", "values": {"qps": 50}}, {"state": "pending"}]}
t is in seconds. A window that is missing from a line is unknown; a pod without a value is missing it.

An output line has t, replicas, valid, reason and terms, and next (seconds) where the policy wants to be asked again by then.
While valid is false the policy cannot tell, nothing is to change, and replicas is the current count.

Between lines something may happen, which is not answered:
  {"restart": true}                 the policy is made anew and given what it remembered; {"forget": true}: without that
  {"params": {"target": 20}}        parameters change; it keeps what it remembers if that fits
  {"pause": 3}                      all that follows is 3 seconds later than its t

With --spec each line is a round of the whole control loop, as the controller does it: bounds, missing data, behavior, settling and the
way to zero. The FILE has an Autoscaler's spec, or an Autoscaler. An output line has from, desired, phase, clamps (the rules that changed
the count) and path, too. A change counts as carried out when the next line's current says so. Where the spec has a serviceRef, a gateway
listens. A line should have concurrency over scaleToZero.after (1m by default) and waiting over 0s besides what the policy reads, or
nothing goes to zero. The spec takes the place of a line's limits; a line's startUp, cost and activeSince are not read.

"sluice policies" lists the policies, "sluice policies NAME" the parameters of one, "sluice policies guard" those of --guard.`

const decideExample = `  sluice decide --policy kpa --param target=10 --param panicThresholdPercentage=200 < observations.jsonl
  sluice decide --policy hpa --param 'behavior={"scaleDown": {"stabilizationWindowSeconds": 60}}' < observations.jsonl
  sluice decide --policy cel --param 'expression=signal("concurrency", "60s") / target' --guard maxReplicas=20 < observations.jsonl
  sluice decide --policy grpc --param address=127.0.0.1:9090 < observations.jsonl
  sluice decide --spec autoscaler.yaml < observations.jsonl`

func decide() *cobra.Command {
	var spec decision.Spec
	var names []string
	var verbose bool
	var specFile string
	c := &cobra.Command{
		Use: "decide {--policy NAME [--guard [NAME=JSON]...] | --spec FILE}", Short: "Ask a policy about recorded or hand-written observations",
		Long: decideLong, Example: decideExample,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if specFile != "" {
				return decideBySpec(cmd, args, specFile, verbose)
			}
			if len(names) == 0 {
				return fmt.Errorf("--policy is missing, or --spec: %w", errUsage)
			}
			spec.Guarded = cmd.Flags().Changed("guard")
			for _, a := range args { // pflag leaves what follows a flag with an optional value
				if !spec.Guarded || !strings.Contains(a, "=") && !strings.HasPrefix(a, "{") {
					return fmt.Errorf("%q: observations come from standard input, parameters by --param and --guard: %w", a, errUsage)
				}
				spec.Guard = append(spec.Guard, a)
			}
			policies, err := decision.BuildAll(spec, names, known())
			if err != nil {
				return fmt.Errorf("%w: %w", err, errUsage)
			}
			defer func() { err = errors.Join(err, decision.CloseAll(policies)) }()
			return decision.Answer(policies, cmd.InOrStdin(), cmd.OutOrStdout(), verbose)
		},
	}
	c.Flags().StringArrayVar(&names, "policy", nil, "the policy's name, or `NAME:key=value,…`; several are all asked, and each line says which")
	c.Flags().StringArrayVar(&spec.Params, "param", nil, "a parameter, `NAME=JSON`; what is no JSON is text; repeatable")
	c.Flags().StringVar(&spec.File, "params-file", "", "a YAML `FILE` of parameters; --param overrides it")
	c.Flags().StringArrayVar(&spec.Guard, "guard", nil, "wrap the policy in guard, with parameters `NAME=JSON` of its own; --param, too, then takes those that the policy does not have")
	c.Flags().Lookup("guard").NoOptDefVal = "{}"
	c.Flags().StringVar(&specFile, "spec", "", "do whole rounds, by the spec or the Autoscaler in this YAML `FILE`")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "add the sentence that explains each decision")
	return c
}

// decideBySpec does a round of the whole loop for each line.
func decideBySpec(cmd *cobra.Command, args []string, file string, verbose bool) error {
	if len(args) > 0 {
		return fmt.Errorf("%q: observations come from standard input: %w", args[0], errUsage)
	}
	for _, name := range []string{"policy", "param", "params-file", "guard"} {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s with --spec: the file has all of it: %w", name, errUsage)
		}
	}
	l, spec, err := decision.ReadLoop(file, known())
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	defer l.Close()
	return decision.AnswerLoop(l, &spec, cmd.InOrStdin(), cmd.OutOrStdout(), verbose)
}
