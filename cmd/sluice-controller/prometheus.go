package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/adapter"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
)

// prometheusFlags say which rules are served, and from where.
type prometheusFlags struct {
	url, tokenFile, caFile, config, rules string
	// resource says to serve metrics.k8s.io, tenants that Autoscalers may bring queries.
	resource, tenants bool
}

func (f *prometheusFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.rules, "rules-config", "", "`FILE` with rules as prometheus-adapter has them (config.yaml or the values of its chart), read again when it changes; their metrics are served besides Sluice's own (docs/prometheus.md)")
	fs.BoolVar(&f.resource, "api-resource", false, "serve metrics.k8s.io, CPU and memory of pods and nodes, from the resourceRules of --rules-config; a cluster has one provider of it, most often metrics-server")
	fs.StringVar(&f.url, "prometheus-url", "", "`URL` of the Prometheus that rules read")
	fs.StringVar(&f.tokenFile, "prometheus-bearer-token-file", "", "a `FILE` with a token for --prometheus-url, read again for each request")
	fs.StringVar(&f.caFile, "prometheus-ca-file", "", "a `FILE` with the authorities that sign the certificate of --prometheus-url (default: the system's)")
	fs.BoolVar(&f.tenants, "prometheus-tenant-queries", false, "let Autoscalers bring queries of their own, which are made with the credentials of --prometheus-url and read the Autoscaler's namespace alone (docs/prometheus-signals.md)")
	fs.StringVar(&f.config, "prometheus-config", "", "`FILE` with the Prometheis that rules read, in place of --prometheus-url: several by name, with headers, certificates and bounds")
}

// validate reports every fault.
func (f *prometheusFlags) validate() error {
	var errs []error
	if f.rules == "" {
		if f.resource {
			errs = append(errs, errors.New("--api-resource without --rules-config: want both"))
		}
		if f.tenants {
			errs = append(errs, errors.New("--prometheus-tenant-queries without --rules-config: want both"))
		}
		for _, o := range []struct{ flag, value string }{
			{"prometheus-url", f.url}, {"prometheus-config", f.config}, {"prometheus-bearer-token-file", f.tokenFile}, {"prometheus-ca-file", f.caFile},
		} {
			if o.value != "" {
				errs = append(errs, fmt.Errorf("--%s = %q without --rules-config: want both", o.flag, o.value))
			}
		}
		return errors.Join(errs...)
	}
	switch {
	case f.url == "" && f.config == "":
		errs = append(errs, fmt.Errorf("--rules-config = %q without --prometheus-url and --prometheus-config: want one of them", f.rules))
	case f.config != "" && (f.url != "" || f.tokenFile != "" || f.caFile != ""):
		errs = append(errs, fmt.Errorf("--prometheus-config = %q with --prometheus-url, --prometheus-bearer-token-file or --prometheus-ca-file: want the file alone", f.config))
	case f.config != "" && f.tenants:
		errs = append(errs, fmt.Errorf("--prometheus-config = %q with --prometheus-tenant-queries: want tenants: true of a source in the file", f.config))
	default:
		if _, err := f.options(); err != nil {
			errs = append(errs, err)
		}
	}
	if _, err := os.Stat(f.rules); err != nil {
		errs = append(errs, fmt.Errorf("--rules-config = %q: want a file that can be read: %w", f.rules, err))
	}
	return errors.Join(errs...)
}

// options are nil without rules.
func (f *prometheusFlags) options() (*adapter.PrometheusOptions, error) {
	if f.rules == "" {
		return nil, nil //nolint:nilnil // no rules are no fault
	}
	if f.config == "" {
		c := source.Default()
		c.Sources = []source.Prometheus{{Name: "default", URL: f.url, BearerTokenFile: f.tokenFile, CAFile: f.caFile, Tenants: f.tenants}}
		if err := c.Validate(); err != nil {
			return nil, fmt.Errorf("--prometheus-url: %w", err)
		}
		return &adapter.PrometheusOptions{Config: c, Rules: f.rules, Resource: f.resource}, nil
	}
	c, err := source.Load(f.config)
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("--prometheus-config = %q: %w", f.config, err)
	}
	return &adapter.PrometheusOptions{Config: c, Rules: f.rules, Resource: f.resource}, nil
}
