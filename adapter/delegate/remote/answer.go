package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
)

// Bounds of answers.
const (
	// maxAnswer bounds the bytes of an answer, maxItems its values: a large Deployment has some
	// thousand pods.
	maxAnswer, maxItems = 8 << 20, 20_000
	// maxExponent bounds exponents of quantities: the parser's cost grows with a negative one.
	maxExponent, maxQuantity = 30, 64
)

// quantity is a value that has been looked at before it is parsed.
type quantity struct{ resource.Quantity }

// UnmarshalJSON implements json.Unmarshaler. null is no value here, where the library takes it for
// zero; the caller sees a nil pointer.
func (q *quantity) UnmarshalJSON(text []byte) error {
	if err := checkQuantity(strings.Trim(string(text), `"`)); err != nil {
		return err
	}
	return q.Quantity.UnmarshalJSON(text)
}

// checkQuantity refuses what would take long to parse.
func checkQuantity(s string) error {
	if len(s) > maxQuantity {
		return fmt.Errorf("a value has %d characters: want at most %d", len(s), maxQuantity)
	}
	if i := strings.LastIndexAny(s, "eE"); i >= 0 && i+1 < len(s) {
		n, err := strconv.Atoi(s[i+1:])
		if err != nil || n < -maxExponent || n > maxExponent {
			return fmt.Errorf("value %q: want a quantity with an exponent of %d at most", s, maxExponent)
		}
	}
	return nil
}

// listOf is a list of values in any version.
type listOf[T any] struct {
	metav1.TypeMeta `json:",inline"`
	Items           []T `json:"items"`
}

// customValue is a value of custom.metrics.k8s.io in v1beta1 and v1beta2.
type customValue struct {
	DescribedObject struct {
		Kind            string    `json:"kind"`
		Namespace       string    `json:"namespace"`
		Name            string    `json:"name"`
		UID             types.UID `json:"uid"`
		APIVersion      string    `json:"apiVersion"`
		ResourceVersion string    `json:"resourceVersion"`
		FieldPath       string    `json:"fieldPath"`
	} `json:"describedObject"`
	// MetricName and Selector are of v1beta1, Metric of v1beta2.
	MetricName string                `json:"metricName"`
	Selector   *metav1.LabelSelector `json:"selector"`
	Metric     struct {
		Name     string                `json:"name"`
		Selector *metav1.LabelSelector `json:"selector"`
	} `json:"metric"`
	Timestamp metav1.Time `json:"timestamp"`
	// Window is of v1beta1, WindowSeconds of v1beta2.
	Window        *int64    `json:"window"`
	WindowSeconds *int64    `json:"windowSeconds"`
	Value         *quantity `json:"value"`
}

// externalValue is a value of external.metrics.k8s.io.
type externalValue struct {
	MetricName    string            `json:"metricName"`
	MetricLabels  map[string]string `json:"metricLabels"`
	Timestamp     metav1.Time       `json:"timestamp"`
	WindowSeconds *int64            `json:"window"`
	Value         *quantity         `json:"value"`
}

// decode reads one JSON document.
func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the answer")
	}
	return nil
}

// decodeCustom reads values of objects. They must be of what was asked for.
func decodeCustom(text []byte, c *Call) ([]custom_metrics.MetricValue, error) {
	var list listOf[customValue]
	if err := decode(text, &list); err != nil {
		return nil, err
	}
	if list.Kind != "MetricValueList" || !strings.HasPrefix(list.APIVersion, custom_metrics.GroupName+"/") {
		return nil, fmt.Errorf("it is a %q of %q: want a MetricValueList", list.Kind, list.APIVersion)
	}
	if len(list.Items) > maxItems {
		return nil, fmt.Errorf("it has %d values: want at most %d", len(list.Items), maxItems)
	}
	if c.Name != "*" && len(list.Items) != 1 {
		return nil, fmt.Errorf("it has %d values of %s %s: want one", len(list.Items), c.Resource, c.Name)
	}
	seen := map[string]bool{}
	out := make([]custom_metrics.MetricValue, 0, len(list.Items))
	for i := range list.Items {
		v := &list.Items[i]
		o := &v.DescribedObject
		switch {
		case v.Value == nil:
			return nil, fmt.Errorf("items[%d] has no value", i)
		case c.Name != "*" && o.Name != c.Name:
			return nil, fmt.Errorf("items[%d] is of %q: want %q", i, o.Name, c.Name)
		case c.Namespace != "" && o.Namespace != "" && o.Namespace != c.Namespace:
			return nil, fmt.Errorf("items[%d] is of namespace %q: want %q", i, o.Namespace, c.Namespace)
		case seen[o.Namespace+"/"+o.Name]:
			return nil, fmt.Errorf("items[%d] is a second value of %q", i, o.Name)
		}
		seen[o.Namespace+"/"+o.Name] = true
		m := custom_metrics.MetricValue{
			DescribedObject: custom_metrics.ObjectReference{
				Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, UID: o.UID, APIVersion: o.APIVersion, ResourceVersion: o.ResourceVersion, FieldPath: o.FieldPath,
			},
			Metric:    custom_metrics.MetricIdentifier{Name: v.Metric.Name, Selector: v.Metric.Selector},
			Timestamp: v.Timestamp, WindowSeconds: v.WindowSeconds, Value: v.Value.Quantity,
		}
		if m.Metric.Name == "" {
			m.Metric.Name, m.Metric.Selector = v.MetricName, v.Selector
		}
		if m.WindowSeconds == nil {
			m.WindowSeconds = v.Window
		}
		if !strings.EqualFold(m.Metric.Name, c.Metric) {
			return nil, fmt.Errorf("items[%d] is of metric %q: want %q", i, m.Metric.Name, c.Metric)
		}
		out = append(out, m)
	}
	return out, nil
}

// decodeExternal reads values of an external metric.
func decodeExternal(text []byte, c *Call) ([]external_metrics.ExternalMetricValue, error) {
	var list listOf[externalValue]
	if err := decode(text, &list); err != nil {
		return nil, err
	}
	if list.Kind != "ExternalMetricValueList" || !strings.HasPrefix(list.APIVersion, external_metrics.GroupName+"/") {
		return nil, fmt.Errorf("it is a %q of %q: want an ExternalMetricValueList", list.Kind, list.APIVersion)
	}
	if len(list.Items) > maxItems {
		return nil, fmt.Errorf("it has %d values: want at most %d", len(list.Items), maxItems)
	}
	out := make([]external_metrics.ExternalMetricValue, 0, len(list.Items))
	for i := range list.Items {
		v := &list.Items[i]
		switch {
		case v.Value == nil:
			return nil, fmt.Errorf("items[%d] has no value", i)
		case !strings.EqualFold(v.MetricName, c.Metric):
			return nil, fmt.Errorf("items[%d] is of metric %q: want %q", i, v.MetricName, c.Metric)
		}
		out = append(out, external_metrics.ExternalMetricValue{
			MetricName: v.MetricName, MetricLabels: v.MetricLabels, Timestamp: v.Timestamp, WindowSeconds: v.WindowSeconds, Value: v.Value.Quantity,
		})
	}
	return out, nil
}

// stale says that a value is too old; nil if it is not, or has no time.
func stale(t metav1.Time, now time.Time, most time.Duration) error {
	if age := now.Sub(t.Time); !t.IsZero() && age >= most {
		return fmt.Errorf("its value is %v old: want less than %v (maxAge)", age.Round(time.Second), most)
	}
	return nil
}
