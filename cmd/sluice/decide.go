package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/algorithms/record"
)

const decideLong = `Ask a policy about observations: JSON Lines from standard input, one decision per line to standard output.
No cluster is needed. Input is read and answered line by line, so it may come from a pipe.

An input line:
  {"t": 30, "current": 10, "ready": 10, "starting": 0, "signals": {"concurrency": {"60s": 1, "6s": 1}}}
  {"t": 32, "current": 3, "ready": 3, "pods": [{"state": "ready", "values": {"qps": 50}}, {"state": "pending"}]}
t is in seconds. A window that is missing from a line is unknown; a pod without a value is missing it.

An output line has t, replicas, valid, reason and terms, and next (seconds) where the policy wants to be asked again by then.
While valid is false the policy cannot tell, nothing is to change, and replicas is the current count.

"sluice policies" lists the policies, "sluice policies NAME" the parameters of one, "sluice policies guard" those of --guard.`

const decideExample = `  sluice decide --policy kpa --param target=10 --param panicThresholdPercentage=200 < observations.jsonl
  sluice decide --policy hpa --param 'behavior={"scaleDown": {"stabilizationWindowSeconds": 60}}' < observations.jsonl
  sluice decide --policy cel --param 'expression=signal("concurrency", "60s") / target' --guard maxReplicas=20 < observations.jsonl
  sluice decide --policy grpc --param address=127.0.0.1:9090 < observations.jsonl`

func decide() *cobra.Command {
	var name, file string
	var params, guards []string
	var verbose bool
	c := &cobra.Command{
		Use: "decide --policy NAME [--guard [NAME=JSON]...]", Short: "Ask a policy about recorded or hand-written observations",
		Long: decideLong, Example: decideExample,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if name == "" {
				return fmt.Errorf("--policy is missing: %w", errUsage)
			}
			guarded := cmd.Flags().Changed("guard")
			for _, a := range args { // pflag leaves what follows a flag with an optional value
				if !guarded || !strings.Contains(a, "=") && !strings.HasPrefix(a, "{") {
					return fmt.Errorf("%q: observations come from standard input, parameters by --param and --guard: %w", a, errUsage)
				}
				guards = append(guards, a)
			}
			p, err := build(name, file, params, guards, guarded)
			if err != nil {
				return fmt.Errorf("%w: %w", err, errUsage)
			}
			defer func() { err = errors.Join(err, p.close()) }()
			return answer(p, cmd.InOrStdin(), cmd.OutOrStdout(), verbose)
		},
	}
	c.Flags().StringVar(&name, "policy", "", "the policy's name")
	c.Flags().StringArrayVar(&params, "param", nil, "a parameter, `NAME=JSON`; what is no JSON is text; repeatable")
	c.Flags().StringVar(&file, "params-file", "", "a YAML `FILE` of parameters; --param overrides it")
	c.Flags().StringArrayVar(&guards, "guard", nil, "wrap the policy in guard, with parameters `NAME=JSON` of its own; --param, too, then takes those that the policy does not have")
	c.Flags().Lookup("guard").NoOptDefVal = "{}"
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "add the sentence that explains each decision")
	return c
}

// asked is a policy and what must be closed after it.
type asked struct {
	algorithms.Policy
	inner algorithms.Policy
}

func (a asked) close() error {
	if c, ok := a.inner.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func build(name, file string, params, guards []string, guarded bool) (asked, error) {
	values := map[string]json.RawMessage{}
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return asked{}, fmt.Errorf("--params-file: %w", err)
		}
		if b, err = yaml.YAMLToJSONStrict(b); err != nil {
			return asked{}, fmt.Errorf("--params-file %s: %w", file, err)
		}
		if err := json.Unmarshal(b, &values); err != nil {
			return asked{}, fmt.Errorf("--params-file %s: want a mapping of parameters", file)
		}
	}
	given, err := parse("--param", params)
	if err != nil {
		return asked{}, err
	}
	maps.Copy(values, given)
	own, around := values, map[string]json.RawMessage{}
	if guarded {
		entry, err := known().Find(name)
		if err != nil {
			return asked{}, err
		}
		own, around = split(values, entry)
	}
	raw, err := json.Marshal(own)
	if err != nil {
		return asked{}, fmt.Errorf("--param: %w", err)
	}
	inner, err := known().New(name, 0, raw)
	if err != nil {
		return asked{}, err
	}
	a := asked{Policy: inner, inner: inner}
	if !guarded {
		return a, nil
	}
	given, err = parse("--guard", guards)
	maps.Copy(around, given)
	if err == nil {
		raw, err = json.Marshal(around)
	}
	cfg := guard.Default()
	if err == nil {
		cfg, err = guard.Parse(cfg, raw)
	}
	if err == nil {
		a.Policy, err = guard.New(cfg, inner)
	}
	if err != nil {
		return asked{}, errors.Join(err, a.close())
	}
	return a, nil
}

// split gives guard the parameters that it has and the policy has not, and a copy of target: as in an Autoscaler, where both work
// by the same.
func split(values map[string]json.RawMessage, e catalog.Entry) (own, around map[string]json.RawMessage) {
	has := func(e catalog.Entry, name string) bool {
		return slices.ContainsFunc(e.Parameters, func(p catalog.Parameter) bool { return p.Name == name })
	}
	own, around = map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for k, v := range values {
		wraps := has(catalog.Guard(), k)
		if !wraps || has(e, k) {
			own[k] = v
		}
		if wraps && (!has(e, k) || k == "target") {
			around[k] = v
		}
	}
	return own, around
}

// parse reads NAME=JSON, and {…} for several at once. A value that is no JSON is text, unless it begins like JSON.
func parse(flag string, given []string) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	for _, g := range given {
		if strings.HasPrefix(strings.TrimSpace(g), "{") {
			var several map[string]json.RawMessage
			if err := json.Unmarshal([]byte(g), &several); err != nil {
				return nil, fmt.Errorf("%s %s: %w", flag, g, err)
			}
			maps.Copy(out, several)
			continue
		}
		name, text, ok := strings.Cut(g, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s %q: want NAME=JSON", flag, g)
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%s %s is given twice", flag, name)
		}
		value := json.RawMessage(text)
		if !json.Valid(value) {
			if strings.ContainsAny(text[:min(len(text), 1)], `{["`) {
				var v any
				return nil, fmt.Errorf("%s %s: %w", flag, name, json.Unmarshal(value, &v))
			}
			b, err := json.Marshal(text)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", flag, name, err)
			}
			value = b
		}
		out[name] = value
	}
	return out, nil
}

// line is one decision as it is written.
type line struct {
	T        json.Number `json:"t"`
	Replicas int         `json:"replicas"`
	Valid    bool        `json:"valid"`
	Reason   string      `json:"reason"`
	Next     float64     `json:"next,omitempty"`
	Message  string      `json:"message,omitempty"`
	Terms    terms       `json:"terms"`
}

// terms are written as one object in their order; a name that comes again gets its number.
type terms []algorithms.Term

// MarshalJSON writes the object.
func (t terms) MarshalJSON() ([]byte, error) {
	seen := make(map[string]int, len(t))
	var b strings.Builder
	b.WriteByte('{')
	for i, term := range t {
		name := term.Name
		if seen[term.Name]++; seen[term.Name] > 1 {
			name += "#" + strconv.Itoa(seen[term.Name])
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(term.Value)
		if err != nil {
			value = []byte("null") // NaN or infinite, which JSON has no word for
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

// answer decides line by line, each written before the next is read.
func answer(p algorithms.Policy, in io.Reader, out io.Writer, verbose bool) error {
	dec, w := record.NewDecoder(in), bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for {
		o, err := dec.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read observations: %w", err)
		}
		d := p.Decide(o)
		l := line{
			T:        json.Number(strconv.FormatFloat(float64(o.Now.UnixMicro())/1e6, 'f', -1, 64)),
			Replicas: d.Replicas, Valid: d.Valid, Reason: d.Reason, Next: d.Next.Seconds(), Terms: d.Terms,
		}
		if !d.Valid {
			l.Replicas = o.Replicas.Current
		}
		if verbose {
			l.Message = d.Message
		}
		if err := enc.Encode(l); err != nil {
			return fmt.Errorf("write decision: %w", err)
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write decision: %w", err)
		}
	}
}
