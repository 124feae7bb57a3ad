package answer_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

func TestQuantity(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value     float64
		want      string
		saturated bool
	}{
		{0, "0", false},
		{12.34567, "12345m", false},
		{2.0005, "2", false},
		{0.00049, "0", false},
		{-0.0009, "0", false},
		{-3.5, "-3500m", false},
		{73400320, "73400320", false},
		{9.2e15, "9200T", false},
		{1e16, "9223372036854775807m", true},
		{1e17, "9223372036854775807m", true},
		{math.Inf(1), "9223372036854775807m", true},
		{-1e17, "-9223372036854775808m", true},
		{math.Inf(-1), "-9223372036854775808m", true},
		{math.MaxFloat64, "9223372036854775807m", true},
		{math.NaN(), "0", false},
	} {
		q, saturated := answer.Quantity(c.value, resource.DecimalSI)
		if q.String() != c.want || saturated != c.saturated {
			t.Errorf("Quantity(%v) = %s, %v; want %s, %v", c.value, q.String(), saturated, c.want, c.saturated)
		}
	}
}

// Quantities are cut towards zero, and never wrap: against exact arithmetic.
func TestQuantityAgainstBig(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	top, bottom := big.NewInt(math.MaxInt64), big.NewInt(math.MinInt64)
	for range 100_000 {
		v := math.Float64frombits(rng.Uint64())
		if math.IsNaN(v) || math.IsInf(v*1000, 0) {
			continue
		}
		milli, _ := new(big.Float).SetFloat64(v * 1000).Int(nil)
		if milli.Cmp(top) > 0 {
			milli = top
		}
		if milli.Cmp(bottom) < 0 {
			milli = bottom
		}
		q, _ := answer.Quantity(v, resource.DecimalSI)
		if got := q.MilliValue(); got != milli.Int64() {
			t.Fatalf("Quantity(%v) = %d thousandths, want %s", v, got, milli)
		}
	}
}

var now = time.Unix(1000, 0)

func sample(value float64, labels ...string) answer.Sample {
	s := answer.Sample{Labels: map[string]string{}, Value: value, Time: now}
	for i := 0; i < len(labels); i += 2 {
		s.Labels[labels[i]] = labels[i+1]
	}
	return s
}

func TestObjects(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	old := sample(1, "pod", "a")
	old.Time = now.Add(-time.Minute)
	for _, c := range []struct {
		name    string
		options answer.Options
		samples []answer.Sample
		scalar  bool
		names   string
		list    bool
		want    string // values, or the error
	}{
		{name: "one", samples: []answer.Sample{sample(1, "pod", "a"), sample(2, "pod", "b")}, names: "a", want: "a=1"},
		{name: "a list leaves out what is missing", samples: []answer.Sample{sample(1, "pod", "c"), sample(2, "pod", "a")}, names: "a b c", list: true, want: "a=2 c=1"},
		{name: "an empty list", names: "a b", list: true, want: ""},
		{name: "empty", names: "a", want: "404 the server could not find the metric m for pods a: Prometheus has no sample for it"},
		{name: "empty is an error", options: answer.Options{OnEmpty: answer.Fail}, names: "a b", list: true, want: "503 the metric m of pods ns/a is unknown: Prometheus has no sample for it"},
		{name: "empty is zero", options: answer.Options{OnEmpty: answer.Zero}, names: "a b", list: true, want: "a=0 b=0"},
		{name: "another label", samples: []answer.Sample{sample(1, "svc", "a")}, names: "a", want: `404 the server could not find the metric m for pods a: the samples have no label pod, only {svc="a"}; metricsQuery has to keep it`},
		{name: "another namespace", samples: []answer.Sample{sample(1, "pod", "a", "namespace", "other"), sample(2, "pod", "a", "namespace", "ns")}, names: "a", want: "a=2"},
		{
			name: "only another namespace", samples: []answer.Sample{sample(1, "pod", "a", "namespace", "other")}, names: "a",
			want: `404 the server could not find the metric m for pods a: no sample of the answer has pod="a" in namespace ns; 1 samples are of other namespaces`,
		},
		{name: "twice", samples: []answer.Sample{sample(1, "pod", "a", "x", "1"), sample(2, "pod", "a", "x", "2")}, names: "a b", list: true, want: "500 Internal error occurred: unable to fetch metrics: metric m of pods ns/a: the query gives 2 samples"},
		{name: "twice, the sum", options: answer.Options{Duplicates: answer.Sum}, samples: []answer.Sample{sample(1, "pod", "a", "x", "1"), sample(2, "pod", "a", "x", "2")}, names: "a", want: "a=3"},
		{name: "twice, the largest", options: answer.Options{Duplicates: answer.Max}, samples: []answer.Sample{sample(1, "pod", "a"), sample(2, "pod", "a", "x", "2")}, names: "a", want: "a=2"},
		{name: "twice, the first", options: answer.Options{Duplicates: answer.First}, samples: []answer.Sample{sample(1, "pod", "a"), sample(2, "pod", "a", "x", "2")}, names: "a", want: "a=1"},
		{name: "the sum with NaN", options: answer.Options{Duplicates: answer.Sum}, samples: []answer.Sample{sample(1, "pod", "a"), sample(nan, "pod", "a", "x", "2")}, names: "a", want: "503"},
		{name: "the largest with NaN", options: answer.Options{Duplicates: answer.Max}, samples: []answer.Sample{sample(nan, "pod", "a"), sample(1, "pod", "a", "x", "2")}, names: "a", want: "503"},
		{name: "NaN", samples: []answer.Sample{sample(nan, "pod", "a")}, names: "a", want: "503 the metric m of pods ns/a is unknown: Prometheus answered NaN"},
		{name: "NaN of one in a list", samples: []answer.Sample{sample(nan, "pod", "a"), sample(1, "pod", "b")}, names: "a b", list: true, want: "b=1"},
		{name: "NaN of all in a list", samples: []answer.Sample{sample(nan, "pod", "a"), sample(inf, "pod", "b")}, names: "a b", list: true, want: "503 the metric m of pods ns/a is unknown: Prometheus answered NaN"},
		{name: "NaN is zero", options: answer.Options{OnNaN: answer.Zero}, samples: []answer.Sample{sample(nan, "pod", "a")}, names: "a", want: "a=0"},
		{name: "infinite", samples: []answer.Sample{sample(inf, "pod", "a")}, names: "a", want: "503 the metric m of pods ns/a is unknown: Prometheus answered +Inf"},
		{name: "infinite is much", options: answer.Options{OnInf: answer.Max}, samples: []answer.Sample{sample(inf, "pod", "a")}, names: "a", want: "a=9223372036854775807m"},
		{name: "infinite is zero", options: answer.Options{OnInf: answer.Zero}, samples: []answer.Sample{sample(-inf, "pod", "a")}, names: "a", want: "a=0"},
		{name: "too old", options: answer.Options{MaxAge: 30 * time.Second}, samples: []answer.Sample{old}, names: "a", want: "503 the metric m of pods ns/a is unknown: its sample is 1m0s old, and maxAge is 30s"},
		{name: "as old as may be", options: answer.Options{MaxAge: time.Minute}, samples: []answer.Sample{old}, names: "a", want: "a=1"},
		{name: "a number", samples: []answer.Sample{sample(12.5)}, scalar: true, names: "a", want: "a=12500m"},
		{name: "a number for two", samples: []answer.Sample{sample(12.5)}, scalar: true, names: "a b", list: true, want: "500 Internal error occurred: unable to fetch metrics: metric m: the query gives a number without labels, and 2 objects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := answer.Objects{
				Metric: "m", Resource: schema.GroupResource{Resource: "pods"}, Label: "pod", NamespaceLabel: "namespace", Namespace: "ns",
				Names: strings.Fields(c.names), List: c.list, Now: now,
			}
			values, err := c.options.Objects(w.Index(answer.Result{Samples: c.samples, Scalar: c.scalar}), w)
			check(t, values, err, c.want)
		})
	}
}

// check compares values, or the beginning of an error.
func check(t *testing.T, values []answer.Value, err error, want string) {
	t.Helper()
	var got []string
	for _, v := range values {
		name := v.Name
		if v.Labels != nil {
			name = answer.Text(v.Labels)
		}
		got = append(got, name+"="+v.String())
	}
	text := strings.Join(got, " ")
	if e, ok := errors.AsType[*answer.Error](err); ok {
		text = strings.Join([]string{map[int]string{404: "404", 500: "500", 503: "503"}[e.Status], e.Error()}, " ")
		if !strings.HasPrefix(text, want) || want == "" {
			t.Errorf("the error is %q, want %q", text, want)
		}
		return
	}
	if err != nil || text != want {
		t.Errorf("the values are %q, %v; want %q", text, err, want)
	}
}

func TestExternal(t *testing.T) {
	t.Parallel()
	a, b := sample(1, "q", "a", "ns", "x"), sample(2, "q", "b", "ns", "x")
	for _, c := range []struct {
		name    string
		options answer.Options
		samples []answer.Sample
		want    string
	}{
		{"two", answer.Options{}, []answer.Sample{a, b}, `{ns="x", q="a"}=1 {ns="x", q="b"}=2`},
		{"the sum", answer.Options{Duplicates: answer.Sum}, []answer.Sample{a, b}, `{ns="x"}=3`},
		{"the largest", answer.Options{Duplicates: answer.Max}, []answer.Sample{a, b}, `{ns="x"}=2`},
		{"none", answer.Options{}, nil, ""},
		{"none is zero", answer.Options{OnEmpty: answer.Zero}, nil, "=0"},
		{"none is an error", answer.Options{OnEmpty: answer.Fail}, nil, "503 the metric m of namespace ns is unknown: Prometheus has no sample for it"},
		{"one is unknown", answer.Options{}, []answer.Sample{a, sample(math.NaN(), "q", "b")}, `503 the metric m of namespace ns is unknown: {q="b"}: Prometheus answered NaN`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			values, err := c.options.External(answer.Result{Samples: c.samples}, "m", "ns", now)
			check(t, values, err, c.want)
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	cpu := answer.Result{Samples: []answer.Sample{
		sample(0.25, "pod", "a", "c", "app"), sample(nan, "pod", "a", "c", "side"), sample(-1, "pod", "b", "c", "app"), sample(nan, "pod", "nan"), sample(inf, "pod", "inf"), sample(1, "pod", "cpu"),
	}}
	memory := answer.Result{Samples: []answer.Sample{
		sample(73400320, "pod", "a", "c", "app"), sample(1, "pod", "b", "c", "other"), sample(1, "pod", "nan"), sample(1, "pod", "inf"),
	}}
	var got []string
	for _, u := range answer.Pods(cpu, memory, []string{"a", "b", "nan", "inf", "cpu", "none"}, [2]string{"pod", "pod"}, [2]string{"c", "c"}) {
		for _, c := range u.Containers {
			got = append(got, u.Name+"/"+c.Name+" "+c.CPU.String()+" "+c.Memory.String())
		}
	}
	if want := "a/app 250m 70Mi, a/side 0 0, b/app 0 0, b/other 0 1"; strings.Join(got, ", ") != want {
		t.Errorf("pods are %q, want %q", got, want)
	}
	nodes, err := answer.Nodes(answer.Result{Samples: []answer.Sample{sample(1, "n", "n1"), sample(nan, "n", "n2")}},
		answer.Result{Samples: []answer.Sample{sample(1024, "n", "n1"), sample(1, "n", "n2")}}, []string{"n1", "n2"}, [2]string{"n", "n"})
	if err != nil || len(nodes) != 1 || nodes[0].Containers[0].Memory.String() != "1Ki" {
		t.Errorf("nodes are %v, %v", nodes, err)
	}
	twice := answer.Result{Samples: []answer.Sample{sample(1, "n", "n1", "x", "1"), sample(1, "n", "n1", "x", "2")}}
	if _, err := answer.Nodes(twice, twice, []string{"n1"}, [2]string{"n", "n"}); err == nil || !strings.Contains(err.Error(), "node n1: the query gives 2 samples") {
		t.Errorf("two samples of a node: %v", err)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1.5,"2"]}]}}`: `{pod="a"}=2@1500`,
		`{"status":"success","data":{"resultType":"scalar","result":[2,"+Inf"]}}`:                                 `{}=+Inf@2000 scalar`,
		`{"status":"success","data":{"resultType":"vector","result":null}}`:                                       "",
		`{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["partial"]}`:                  "partial",
		`{"status":"error","errorType":"bad_data","error":"no"}`:                                                  "error: bad_data: no",
		`{"status":"success","data":{"resultType":"matrix","result":[]}}`:                                         "error: the result is a \"matrix\"",
		`{"status":"success","data":{"resultType":"scalar","result":null}}`:                                       "error: read the answer: the scalar has no value",
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}`:         "error: sample {} is a histogram",
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}`:                            "error: sample {} has no value",
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}`:            "error: read sample 0",
		`{"status":"success","data":{"resultType":"vec`:                                                           "error: read the answer: unexpected end",
		`{}`: "error: read the answer: its status is \"\"",
	} {
		r, warnings, err := answer.Decode([]byte(text))
		got := strings.Join(warnings, " ")
		for _, s := range r.Samples {
			got += answer.Text(s.Labels) + "=" + strings.TrimSuffix(formatFloat(s.Value), ".0") + "@" + formatFloat(float64(s.Time.UnixMilli()))
		}
		if r.Scalar {
			got += " scalar"
		}
		if err != nil {
			got = "error: " + err.Error()
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("Decode(%s) = %q, want %q", text, got, want)
		}
	}
}

// A LabelSets reads what Decode reads, and gives each set of labels once.
func TestLabelSets(t *testing.T) {
	t.Parallel()
	var sets answer.LabelSets
	random := rand.New(rand.NewPCG(14, 2))
	shared := map[string]map[string]string{}
	for turn := range 400 {
		var text []string
		for range 100 {
			text = append(text, fmt.Sprintf(`{"metric":{"pod":"p%d","x":"%d"},"value":[1,"%d"]}`, turn/100*1000+random.IntN(300), turn/100, random.IntN(9)))
		}
		body := []byte(`{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(text, ",") + `]}}`)
		want, _, err := answer.Decode(body)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := sets.Decode(body)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("turn %d: it reads %v, %v; want %v", turn, got, err, want)
		}
		for _, s := range got.Samples {
			key := answer.Text(s.Labels)
			if first, ok := shared[key]; ok && reflect.ValueOf(first).Pointer() != reflect.ValueOf(s.Labels).Pointer() {
				t.Fatalf("turn %d: %s is there twice", turn, key)
			}
			shared[key] = s.Labels
		}
	}
}

func formatFloat(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return big.NewFloat(v).Text('f', -1)
}

// FuzzDecode: no answer makes the reader panic, and what it gives makes values or errors, never a
// quantity of another sign.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1.5,"2"]}]}}`))
	f.Add([]byte(`{"status":"success","data":{"resultType":"scalar","result":[2,"-1e300"]}}`))
	f.Add([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}`))
	f.Add([]byte(`{"status":"error"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, _, err := answer.Decode(text)
		if err != nil {
			return
		}
		if r.Scalar && len(r.Samples) != 1 {
			t.Fatalf("a scalar with %d samples", len(r.Samples))
		}
		values, err := answer.Options{OnInf: answer.Max}.External(r, "m", "ns", now)
		for i, v := range values {
			if value := r.Samples[i].Value; err == nil && (value > 0.001) != (v.Sign() > 0) && math.Abs(value) > 0.001 {
				t.Errorf("%v became %s", value, v.String())
			}
		}
		for _, s := range r.Samples {
			w := answer.Objects{Label: "pod", Names: []string{s.Labels["pod"]}, Now: now}
			_, _ = answer.Options{}.Objects(w.Index(r), w)
		}
	})
}
