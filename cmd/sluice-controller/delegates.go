package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluice-autoscaler/sluice/adapter"
)

// delegateFlags say which other providers of metrics there are.
type delegateFlags struct{ file, serviceAccount string }

func (f *delegateFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.file, "delegate-config", "", "`FILE` that names other providers of metrics, such as KEDA's, and what is theirs, read again when it changes (docs/delegation.md)")
	fs.StringVar(&f.serviceAccount, "delegate-service-account", "sluice-delegate", "the ServiceAccount, in --namespace, that Sluice is to other providers; it needs the right to read metrics and should have no other, since providers are shown its tokens")
}

// validate reports every fault. served says that an API of metrics is.
func (f *delegateFlags) validate(served bool) error {
	if f.file == "" {
		return nil
	}
	var errs []error
	if !served {
		errs = append(errs, fmt.Errorf("--delegate-config = %q without --api-custom and --api-external: want one of them", f.file))
	}
	if f.serviceAccount != "" && len(validation.IsDNS1123Subdomain(f.serviceAccount)) > 0 {
		errs = append(errs, fmt.Errorf("--delegate-service-account = %q: want the name of a ServiceAccount, or nothing where each delegate has an identity", f.serviceAccount))
	}
	// What it says may be mended while the process does its other work.
	if _, err := os.Stat(f.file); err != nil {
		errs = append(errs, fmt.Errorf("--delegate-config = %q: want a file that can be read: %w", f.file, err))
	}
	return errors.Join(errs...)
}

// options are nil without delegates.
func (f *delegateFlags) options(namespace string) *adapter.DelegateOptions {
	if f.file == "" {
		return nil
	}
	return &adapter.DelegateOptions{File: f.file, Namespace: namespace, ServiceAccount: f.serviceAccount}
}
