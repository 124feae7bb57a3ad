// Package secrets keeps the certificates of package pki in Secrets of the release's namespace, so
// that all replicas of the controller share them and gateways can mount theirs.
package secrets

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-autoscaler/sluice/internal/pki"
)

// Keys of the authority's Secret beside tls.crt and tls.key, which sign.
const (
	caKey       = "ca.crt"
	nextKey     = "next.crt"
	nextKeyKey  = "next.key"
	sinceKey    = "since"
	checkEvery  = time.Minute
	retryLeast  = time.Second
	retryMost   = 10 * time.Second
	maxAttempts = 5
	// announceEvery is the least time between two announcements that others caused.
	announceEvery = 5 * time.Second
)

// Options configure a Keeper. Kube, Namespace, Log and Clock are needed.
type Options struct {
	Kube kubernetes.Interface
	// Dynamic writes the authority into APIServices; nil when there are none.
	Dynamic   dynamic.Interface
	Namespace string
	// Issue makes and renews certificates. False reads what somebody else, such as cert-manager,
	// keeps in the same Secrets.
	Issue bool
	// APIServices names those that carry the adapter's authority.
	APIServices []string
	Policy      pki.Policy
	Log         *slog.Logger
	Clock       func() time.Time
}

// Keeper keeps the Secrets, and a copy in memory. It serves the adapter's certificate as a
// dynamiccertificates.CertKeyContentProvider, and is safe for concurrent use.
type Keeper struct {
	Options

	// renounced is sent to when somebody else wrote to an APIService.
	renounced chan struct{}

	mu        sync.Mutex
	adapter   pki.Pair
	client    pki.Pair
	config    *tls.Config
	listeners []dynamiccertificates.Listener
}

// New returns a Keeper that has read nothing yet.
func New(o Options) *Keeper { return &Keeper{Options: o, renounced: make(chan struct{}, 1)} }

// Name names the provider in the API server's logs.
func (k *Keeper) Name() string { return pki.AdapterSecret }

// CurrentCertKeyContent returns the adapter's certificate and key as PEM.
func (k *Keeper) CurrentCertKeyContent() ([]byte, []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.adapter.Cert, k.adapter.Key
}

// CA returns the authority that signed the adapter's certificate as PEM, nil while there is none.
func (k *Keeper) CA() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.adapter.CA
}

// Announce has the authority written into the APIServices again, soon. It does not wait.
func (k *Keeper) Announce() {
	select {
	case k.renounced <- struct{}{}:
	default:
	}
}

// AddListener registers whoever is to be told of a new certificate.
func (k *Keeper) AddListener(l dynamiccertificates.Listener) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listeners = append(k.listeners, l)
}

// ClientTLS returns what connections to gateways are made with: it shows the controller's
// certificate and believes a gateway by name. It is called for each connection, so that a new
// certificate needs no restart. Nil means that there is no certificate yet.
func (k *Keeper) ClientTLS() *tls.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config
}

// Run keeps the certificates young and the APIServices' authority right until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	retry, last := retryLeast, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.renounced:
			// Two that write in turn are not to do so at full speed.
			if since := k.Clock().Sub(last); since < announceEvery {
				wait.Reset(announceEvery - since)
				continue
			}
		case <-wait.C:
		}
		last = k.Clock()
		next := checkEvery
		if err := errors.Join(k.Ensure(ctx), k.announce(ctx)); err != nil && ctx.Err() == nil {
			k.Log.WarnContext(ctx, "certificates not kept, will retry", slog.Any("error", err))
			next, retry = retry, min(2*retry, retryMost)
		} else {
			retry = retryLeast
		}
		wait.Reset(next)
	}
}

// Ensure reads the Secrets, and makes or renews what is missing or old. Of several replicas that do
// so at once, one wins and the others read.
func (k *Keeper) Ensure(ctx context.Context) error {
	if !k.Issue {
		return k.read(ctx)
	}
	var err error
	for range maxAttempts {
		if err = k.issue(ctx); err == nil || !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return fmt.Errorf("others keep writing the certificates: %w", err)
}

// read takes what others keep in the Secrets.
func (k *Keeper) read(ctx context.Context) error {
	found := map[string]pki.Pair{}
	for _, name := range []string{pki.AdapterSecret, pki.ControllerSecret} {
		s, err := k.get(ctx, name)
		if err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("read Secret %s: not found (certificates are not issued here: cert-manager or somebody else has to)", name)
		}
		found[name] = pairOf(s)
	}
	return k.take(found[pki.AdapterSecret], found[pki.ControllerSecret])
}

// issue does one attempt.
func (k *Keeper) issue(ctx context.Context) error {
	now := k.Clock()
	ids := map[string]pki.Identity{pki.AdapterSecret: pki.Adapter(k.Namespace), pki.GatewaySecret: pki.Gateway(k.Namespace), pki.ControllerSecret: pki.Controller(k.Namespace)}
	have, pairs := map[string]*corev1.Secret{}, map[string]pki.Pair{}
	var issued []pki.Pair
	for name := range ids {
		s, err := k.get(ctx, name)
		if err != nil {
			return err
		}
		if s != nil {
			have[name], pairs[name] = s, pairOf(s)
			issued = append(issued, pairs[name])
		}
	}
	s, err := k.get(ctx, pki.AuthoritySecret)
	if err != nil {
		return err
	}
	before := authorityOf(s)
	authority, err := before.Step(now, k.Policy, issued...)
	if err != nil {
		return err
	}
	if s == nil || !bytes.Equal(before.Cert, authority.Cert) || !bytes.Equal(before.Trusted, authority.Trusted) || !bytes.Equal(before.Next, authority.Next) {
		if err := k.write(ctx, s, pki.AuthoritySecret, corev1.SecretTypeOpaque, authorityData(authority)); err != nil {
			return err
		}
		k.Log.InfoContext(ctx, "certificate authority changed", slog.Bool("next_trusted", len(authority.Next) > 0))
	}
	for name, id := range ids {
		pair, err := authority.Renew(pairs[name], id, now, k.Policy)
		if err != nil {
			return err
		}
		if was := pairs[name]; have[name] == nil || !bytes.Equal(was.Cert, pair.Cert) || !bytes.Equal(was.CA, pair.CA) {
			data := map[string][]byte{corev1.TLSCertKey: pair.Cert, corev1.TLSPrivateKeyKey: pair.Key, caKey: pair.CA}
			if err := k.write(ctx, have[name], name, corev1.SecretTypeTLS, data); err != nil {
				return err
			}
		}
		pairs[name] = pair
	}
	return k.take(pairs[pki.AdapterSecret], pairs[pki.ControllerSecret])
}

// get reads a Secret; nil when there is none.
func (k *Keeper) get(ctx context.Context, name string) (*corev1.Secret, error) {
	s, err := k.Kube.CoreV1().Secrets(k.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", name, err)
	}
	return s, nil
}

// write creates a Secret, or updates the one that was read.
func (k *Keeper) write(ctx context.Context, was *corev1.Secret, name string, kind corev1.SecretType, data map[string][]byte) error {
	secrets := k.Kube.CoreV1().Secrets(k.Namespace)
	var err error
	if was == nil {
		_, err = secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: name}, Type: kind, Data: data}, metav1.CreateOptions{})
	} else {
		next := was.DeepCopy()
		next.Data = data
		_, err = secrets.Update(ctx, next, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", name, err)
	}
	return nil
}

func pairOf(s *corev1.Secret) pki.Pair {
	return pki.Pair{Cert: s.Data[corev1.TLSCertKey], Key: s.Data[corev1.TLSPrivateKeyKey], CA: s.Data[caKey]}
}

func authorityOf(s *corev1.Secret) pki.Authority {
	if s == nil {
		return pki.Authority{}
	}
	since, _ := time.Parse(time.RFC3339, string(s.Data[sinceKey])) // the zero time is long ago
	return pki.Authority{
		Cert: s.Data[corev1.TLSCertKey], Key: s.Data[corev1.TLSPrivateKeyKey], Trusted: s.Data[caKey],
		Next: s.Data[nextKey], NextKey: s.Data[nextKeyKey], Since: since,
	}
}

func authorityData(a pki.Authority) map[string][]byte {
	data := map[string][]byte{
		corev1.TLSCertKey: a.Cert, corev1.TLSPrivateKeyKey: a.Key, caKey: a.Trusted, sinceKey: []byte(a.Since.UTC().Format(time.RFC3339)),
	}
	if len(a.Next) > 0 {
		data[nextKey], data[nextKeyKey] = a.Next, a.NextKey
	}
	return data
}

// take puts certificates in use.
func (k *Keeper) take(adapter, client pki.Pair) error {
	config, err := pki.ClientConfig(client, pki.Gateway(k.Namespace).Names[0])
	if err != nil {
		return fmt.Errorf("read Secret %s: %w", pki.ControllerSecret, err)
	}
	k.mu.Lock()
	changed := !bytes.Equal(k.adapter.Cert, adapter.Cert)
	if !bytes.Equal(k.client.Cert, client.Cert) || !bytes.Equal(k.client.CA, client.CA) {
		k.config = config
	}
	k.adapter, k.client = adapter, client
	told := k.listeners
	k.mu.Unlock()
	if changed {
		for _, l := range told {
			l.Enqueue()
		}
	}
	return nil
}

// announce writes the authority into the APIServices that do not carry it. One that does not exist
// was not wanted.
func (k *Keeper) announce(ctx context.Context) error {
	k.mu.Lock()
	ca := base64.StdEncoding.EncodeToString(k.adapter.CA)
	k.mu.Unlock()
	if ca == "" || k.Dynamic == nil {
		return nil
	}
	client := k.Dynamic.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	var errs []error
	for _, name := range k.APIServices {
		got, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			if !apierrors.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("read APIService %s: %w", name, err))
			}
			continue
		}
		spec, _ := got.Object["spec"].(map[string]any)
		service, _ := spec["service"].(map[string]any)
		if service["name"] != "sluice-adapter" || service["namespace"] != k.Namespace {
			k.Log.WarnContext(ctx, "another provider is registered", slog.String("apiservice", name), slog.Any("service", service))
			continue
		}
		if spec["caBundle"] == ca {
			continue
		}
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"caBundle": ca}})
		if err != nil {
			return fmt.Errorf("encode the authority: %w", err)
		}
		if _, err := client.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			errs = append(errs, fmt.Errorf("write the authority into APIService %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
