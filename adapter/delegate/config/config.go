// Package config is the file that names other providers of metrics, and says which requests are
// theirs. It is pure: it reads no clock, no cluster and no network.
package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

// APIs that a provider may answer.
const (
	Custom   = "custom"
	External = "external"
)

// Config is the file.
type Config struct {
	// Delegates are asked in their order.
	Delegates []Delegate `yaml:"delegates"`
}

// Delegate is one provider. It is not changed once it is parsed.
type Delegate struct {
	// Name is how logs, errors and metrics name it.
	Name string `yaml:"name"`
	// Service or URL is where it is; one of them is given.
	Service *Service `yaml:"service,omitempty"`
	URL     string   `yaml:"url,omitempty"`
	// CA says how its certificate is verified. It must be said.
	CA CA `yaml:"ca"`
	// ServerName is the name in its certificate; empty means the Service's or the URL's host.
	ServerName string `yaml:"serverName,omitempty"`
	// Identity says who Sluice is to it; nothing means a token of --delegate-service-account.
	Identity Identity `yaml:"identity,omitempty"`
	// APIs are custom, external or both.
	APIs []string `yaml:"apis"`
	// Match are alternatives.
	Match []Match `yaml:"match"`
	// Timeout bounds a request, 100ms–30s; 0 means 10s. A longer one waits for slow providers.
	Timeout model.Duration `yaml:"timeout,omitempty"`
	// MaxConcurrent bounds the requests at once, 1–256; 0 means 16. As many may wait again.
	MaxConcurrent int `yaml:"maxConcurrent,omitempty"`
	// MaxAge is the age at which a value is unknown by its timestamp, 10s–24h; 0 means 5m. A longer
	// one takes older values.
	MaxAge model.Duration `yaml:"maxAge,omitempty"`
}

// Service is a Service of the cluster.
type Service struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
	// Port is 1–65535; 0 means 443.
	Port int `yaml:"port,omitempty"`
}

// CA is one of three. A file is read again when it changes.
type CA struct {
	File                  string `yaml:"file,omitempty"`
	Inline                string `yaml:"inline,omitempty"`
	InsecureSkipTLSVerify bool   `yaml:"insecureSkipTLSVerify,omitempty"`
}

// Identity is one of three, or nothing. Files are read again when they change.
type Identity struct {
	BearerTokenFile string `yaml:"bearerTokenFile,omitempty"`
	CertFile        string `yaml:"certFile,omitempty"`
	KeyFile         string `yaml:"keyFile,omitempty"`
	// None says that it asks nobody who they are.
	None bool `yaml:"none,omitempty"`
}

// ServiceAccount reports whether nothing else is said.
func (i Identity) ServiceAccount() bool { return i == Identity{} }

// Match says which requests are a provider's. All that is given must hold.
type Match struct {
	// Metric is a name. MetricPattern is an expression that matches a whole name.
	Metric        string `yaml:"metric,omitempty"`
	MetricPattern string `yaml:"metricPattern,omitempty"`
	// IgnoreCase compares names without regard to case.
	IgnoreCase bool `yaml:"ignoreCase,omitempty"`
	// Namespaces are names. NamespaceSelector selects namespaces by their labels.
	Namespaces        []string `yaml:"namespaces,omitempty"`
	NamespaceSelector string   `yaml:"namespaceSelector,omitempty"`
	// SelectorKey is a key that the metric's selector asks for. SelectorValues are the values that
	// it may ask for; none means any.
	SelectorKey    string   `yaml:"selectorKey,omitempty"`
	SelectorValues []string `yaml:"selectorValues,omitempty"`
	// Rest takes what nobody else takes.
	Rest bool `yaml:"rest,omitempty"`

	pattern   *regexp.Regexp
	namespace labels.Selector
}

// Bounds of a file.
const (
	// MaxBytes bounds it.
	MaxBytes     = 1 << 20
	maxDelegates = 32
	maxMatches   = 64
	maxListed    = 1000
	maxPattern   = 1000
)

// Parse reads a file strictly, and names every fault.
func Parse(text []byte) (*Config, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("the file has %d bytes: want at most %d", len(text), MaxBytes)
	}
	c := &Config{}
	if err := yaml.UnmarshalStrict(text, c); err != nil {
		return nil, err
	}
	return Compile(c)
}

// Compile validates what was not parsed, names every fault, and makes it ready. It changes c.
func Compile(c *Config) (*Config, error) {
	if err := c.compile(); err != nil {
		return nil, err
	}
	return c, nil
}

// faults collects errors that name a field, its value and a remedy.
type faults struct {
	place string
	errs  []error
}

func (f *faults) add(field string, value any, want string, args ...any) {
	if s, ok := value.(string); ok {
		value = fmt.Sprintf("%q", s)
	}
	f.errs = append(f.errs, fmt.Errorf("%s.%s = %v: %s", f.place, field, value, fmt.Sprintf(want, args...)))
}

// compile validates the file and prepares what matches.
func (c *Config) compile() error {
	var errs []error
	if n := len(c.Delegates); n > maxDelegates {
		errs = append(errs, fmt.Errorf("delegates has %d entries: want at most %d", n, maxDelegates))
	}
	names, rest := map[string]bool{}, map[string]string{}
	for i := range c.Delegates {
		d := &c.Delegates[i]
		f := faults{place: fmt.Sprintf("delegates[%d]", i)}
		switch {
		case len(validation.IsDNS1123Label(d.Name)) > 0:
			f.add("name", d.Name, "want lower-case letters, digits and dashes, such as keda")
		case names[d.Name]:
			f.add("name", d.Name, "another delegate has it; want a name of its own")
		}
		names[d.Name] = true
		d.place(&f)
		d.bounds(&f)
		d.matches(&f, rest)
		errs = append(errs, f.errs...)
	}
	return errors.Join(errs...)
}

// place validates where the provider is and how each side knows the other.
func (d *Delegate) place(f *faults) {
	switch {
	case d.Service == nil && d.URL == "":
		f.add("service", "", "want a service {namespace, name, port} or a url")
	case d.Service != nil && d.URL != "":
		f.add("url", d.URL, "there is a service as well; want one of them")
	case d.Service != nil:
		if len(validation.IsDNS1123Label(d.Service.Namespace)) > 0 {
			f.add("service.namespace", d.Service.Namespace, "want the name of a namespace")
		}
		if len(validation.IsDNS1035Label(d.Service.Name)) > 0 {
			f.add("service.name", d.Service.Name, "want the name of a Service")
		}
		if d.Service.Port < 0 || d.Service.Port > 65535 {
			f.add("service.port", d.Service.Port, "want 1–65535, or none for 443")
		}
	default:
		u, err := url.Parse(d.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			f.add("url", d.URL, "want https://host:port and nothing else")
		}
	}
	n := 0
	for _, given := range []bool{d.CA.File != "", d.CA.Inline != "", d.CA.InsecureSkipTLSVerify} {
		if given {
			n++
		}
	}
	if n != 1 {
		f.add("ca", fmt.Sprintf("%d of file, inline, insecureSkipTLSVerify", n), "want one: a file, the authorities inline, or insecureSkipTLSVerify: true to trust whoever answers")
	}
	if d.CA.Inline != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(d.CA.Inline)) {
		f.add("ca.inline", d.CA.Inline[:min(len(d.CA.Inline), 30)], "want certificates in PEM")
	}
	if (d.Identity.CertFile == "") != (d.Identity.KeyFile == "") {
		f.add("identity.certFile", d.Identity.CertFile, "want certFile and keyFile, or neither")
	}
	if d.Identity.None && (d.Identity.BearerTokenFile != "" || d.Identity.CertFile != "") {
		f.add("identity.none", true, "there is another identity as well; want one of them")
	}
}

// bounds validates what is allowed to a provider.
func (d *Delegate) bounds(f *faults) {
	within := func(field string, v *model.Duration, initial, least, most time.Duration) {
		if *v == 0 {
			*v = model.Duration(initial)
		}
		if t := time.Duration(*v); t < least || t > most {
			f.add(field, *v, "want %v–%v", least, most)
		}
	}
	within("timeout", &d.Timeout, 10*time.Second, 100*time.Millisecond, 30*time.Second)
	within("maxAge", &d.MaxAge, 5*time.Minute, 10*time.Second, 24*time.Hour)
	if d.MaxConcurrent == 0 {
		d.MaxConcurrent = 16
	}
	if d.MaxConcurrent < 1 || d.MaxConcurrent > 256 {
		f.add("maxConcurrent", d.MaxConcurrent, "want 1–256 (requests)")
	}
	if len(d.APIs) == 0 {
		f.add("apis", "[]", "want custom, external or both")
	}
	for i, api := range d.APIs {
		if api != Custom && api != External {
			f.add(fmt.Sprintf("apis[%d]", i), api, "want custom or external")
		} else if slices.Contains(d.APIs[:i], api) {
			f.add(fmt.Sprintf("apis[%d]", i), api, "it is there twice; want it once")
		}
	}
}

// matches validates and compiles what matches. rest has who takes the rest of each API.
func (d *Delegate) matches(f *faults, rest map[string]string) {
	if n := len(d.Match); n < 1 || n > maxMatches {
		f.add("match", fmt.Sprintf("a list of %d", n), "want 1–%d alternatives, such as - metric: queue_depth, or - rest: true", maxMatches)
	}
	place := f.place
	for i := range d.Match {
		m := &d.Match[i]
		f.place = fmt.Sprintf("%s.match[%d]", place, i)
		m.compile(f)
		if !m.Rest || len(m.Namespaces) > 0 || m.NamespaceSelector != "" {
			continue
		}
		for _, api := range d.APIs {
			if other := rest[api]; other != "" {
				f.add("rest", true, "%s takes the rest of the %s metrics; want one that does", other, api)
			} else {
				rest[api] = f.place
			}
		}
	}
	f.place = place
}

func (m *Match) compile(f *faults) {
	if !m.Rest && m.Metric == "" && m.MetricPattern == "" && m.SelectorKey == "" && len(m.Namespaces) == 0 && m.NamespaceSelector == "" {
		f.add("metric", "", "the match says nothing; want metric, metricPattern, selectorKey, namespaces or namespaceSelector, or rest: true for all that is nobody else's")
	}
	if m.Rest && (m.Metric != "" || m.MetricPattern != "" || m.SelectorKey != "") {
		f.add("rest", true, "the rest has no metric, metricPattern and selectorKey; want one or the other")
	}
	if m.Metric != "" && m.MetricPattern != "" {
		f.add("metricPattern", m.MetricPattern, "there is a metric as well; want one of them")
	}
	if m.MetricPattern != "" {
		flags := ""
		if m.IgnoreCase {
			flags = "(?i)"
		}
		var err error
		// Alone first: a bracket too many must not escape the anchors.
		if _, err = regexp.Compile(m.MetricPattern); err == nil {
			m.pattern, err = regexp.Compile(flags + `\A(?:` + m.MetricPattern + `)\z`)
		}
		if len(m.MetricPattern) > maxPattern {
			err = fmt.Errorf("it has more than %d bytes", maxPattern)
		}
		if err != nil {
			f.add("metricPattern", m.MetricPattern[:min(len(m.MetricPattern), 100)], "want a regular expression (RE2) for a whole name: %v", err)
		}
	}
	if len(m.SelectorValues) > 0 && m.SelectorKey == "" {
		f.add("selectorValues", m.SelectorValues, "want a selectorKey with them")
	}
	if m.SelectorKey != "" && len(validation.IsQualifiedName(m.SelectorKey)) > 0 {
		f.add("selectorKey", m.SelectorKey, "want a label key, such as scaledobject.keda.sh/name")
	}
	for i, n := range m.Namespaces {
		if len(validation.IsDNS1123Label(n)) > 0 {
			f.add(fmt.Sprintf("namespaces[%d]", i), n, "want the name of a namespace")
		}
	}
	if len(m.Namespaces) > maxListed || len(m.SelectorValues) > maxListed {
		f.add("namespaces", len(m.Namespaces), "want at most %d namespaces and values", maxListed)
	}
	if m.NamespaceSelector != "" {
		var err error
		if m.namespace, err = labels.Parse(m.NamespaceSelector); err != nil {
			f.add("namespaceSelector", m.NamespaceSelector, "want a label selector, such as keda=team-a: %v", err)
		} else if m.namespace.Empty() {
			f.add("namespaceSelector", m.NamespaceSelector, "it selects all; want a label selector, such as keda=team-a")
		}
	}
}
