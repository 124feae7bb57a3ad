package decision

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/record"
)

// ReadLoop makes the control loop of a YAML file: a Spec, or an Autoscaler with one. Close is to be
// called once it is not used any more.
func ReadLoop(file string, c loop.Catalog) (*loop.Loop, loop.Spec, error) {
	var spec loop.Spec
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, spec, fmt.Errorf("--spec: %w", err)
	}
	if raw, err = yaml.YAMLToJSONStrict(raw); err == nil {
		raw, err = specOf(raw)
	}
	if err == nil {
		err = algorithms.Strict(raw, &spec)
	}
	var l *loop.Loop
	if err == nil {
		l, err = loop.New(spec, c, loop.DefaultTiming())
	}
	if err != nil {
		return nil, spec, fmt.Errorf("--spec %s: %w", file, err)
	}
	return l, spec, nil
}

// specOf takes the Spec out of an Autoscaler; anything else is one.
func specOf(raw []byte) ([]byte, error) {
	var object struct {
		Kind string                     `json:"kind"`
		Spec map[string]json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, errors.New("want one spec, or one Autoscaler")
	}
	if object.Kind != "Autoscaler" {
		return raw, nil
	}
	delete(object.Spec, "scaleTargetRef") // what is scaled is no matter of the loop
	return json.Marshal(object.Spec)
}

// loopLine is one round as it is written.
type loopLine struct {
	T        json.Number        `json:"t"`
	From     int                `json:"from"`
	Replicas int                `json:"replicas"`
	Valid    bool               `json:"valid"`
	Desired  *int               `json:"desired,omitempty"`
	Reason   string             `json:"reason"`
	Phase    loop.Phase         `json:"phase"`
	Clamps   []algorithms.Clamp `json:"clamps,omitempty"`
	Waiting  string             `json:"waiting,omitempty"`
	First    []string           `json:"first,omitempty"`
	Path     *loop.PathState    `json:"path,omitempty"`
	Next     float64            `json:"next,omitempty"`
	Message  string             `json:"message,omitempty"`
	Terms    terms              `json:"terms"`
}

// AnswerLoop does a round of the loop for each line, each written before the next is read. A change
// counts as carried out when the next line's current is what was decided. Where the Spec has a
// Service, one gateway listens, and the path is what the last round wanted.
func AnswerLoop(l *loop.Loop, spec *loop.Spec, in io.Reader, out io.Writer, verbose bool) error {
	dec, w := record.NewDecoder(in), bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	var last *loop.Commands
	path := loop.PathState{}
	for {
		o, c, err := dec.NextOrControl()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && c != nil {
			if c.Restart || c.Forget || len(c.Params) > 0 {
				return fmt.Errorf("read observations: line %d: with --spec there is pause only: restart and params are for --policy", dec.Line())
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("read observations: %w", err)
		}
		if last != nil {
			l.Done(last.Record.At, *last, carriedOut(last, o.Replicas.Current))
		}
		v := view(&o)
		if spec.ServiceRef != nil {
			v.Path = &loop.Path{In: path.In, Ready: o.Replicas.Ready, Listening: 1}
			if s, ok := o.Shortest(algorithms.Waiting); ok {
				v.Path.Waiting = algorithms.Pods(s.Value)
			}
		}
		done := l.Step(v)
		last = &done
		if done.Path != nil {
			path = *done.Path
		}
		line := lineOf(&done, verbose)
		if o.Pods == nil {
			line.First = nil // the names are made up
		}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("write decision: %w", err)
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write decision: %w", err)
		}
	}
}

var errNotCarriedOut = errors.New("the next line has another count")

// carriedOut tells whether a round's count was written, by the count that the next line has.
func carriedOut(c *loop.Commands, current int) error {
	if c.Scale != nil && *c.Scale != current {
		return errNotCarriedOut
	}
	return nil
}

// view makes a round's view of an observation. Pods that are only counted are given names.
func view(o *algorithms.Observation) loop.View {
	v := loop.View{Now: o.Now, Signals: o.Signals, Replicas: o.Replicas.Current}
	for i := range o.Pods {
		p := &o.Pods[i]
		in := loop.Instance{ID: p.Name, State: p.State, Created: p.Started, Started: p.Started, InFlight: -1, Limit: o.Limits.PodConcurrency}
		if in.ID == "" {
			in.ID = "pod-" + strconv.Itoa(i)
		}
		if n, ok := p.Values[algorithms.Concurrency]; ok {
			in.InFlight = n
		}
		v.Instances = append(v.Instances, in)
	}
	if o.Pods != nil {
		return v
	}
	for _, s := range []struct {
		state algorithms.PodState
		n     int
	}{
		{algorithms.PodReady, o.Replicas.Ready},
		{algorithms.PodStarting, o.Replicas.Starting},
		{algorithms.PodTerminating, o.Replicas.Terminating},
	} {
		for i := range s.n {
			in := loop.Instance{ID: string(s.state) + "-" + strconv.Itoa(i), State: s.state, InFlight: -1, Limit: o.Limits.PodConcurrency}
			if s.state == algorithms.PodStarting && i < len(o.Replicas.StartingAges) {
				in.Created = o.Now.Add(-o.Replicas.StartingAges[i])
			}
			v.Instances = append(v.Instances, in)
		}
	}
	return v
}

func lineOf(c *loop.Commands, verbose bool) loopLine {
	r := &c.Record
	l := loopLine{
		T: json.Number(strconv.FormatFloat(float64(r.At.UnixMicro())/1e6, 'f', -1, 64)), From: r.From, Replicas: r.To, Valid: r.Valid,
		Reason: r.Reason, Phase: r.Phase, Clamps: r.Clamps, Waiting: r.Waiting, First: c.First, Path: c.Path, Next: c.Next.Seconds(), Terms: r.Terms,
	}
	if r.Valid {
		l.Desired = &r.Desired
	}
	if verbose {
		l.Message = r.Message
	}
	return l
}
