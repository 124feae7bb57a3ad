package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
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
	"k8s.io/client-go/util/cert"
)

const (
	// tlsSecret is the Secret, in the controller's namespace, in which all replicas share the serving certificate.
	tlsSecret = "sluice-adapter-tls"
	// adapterService is the Service that the APIServices name; the certificate is made out to it.
	adapterService = "sluice-adapter"
	// renewBefore is how long before its end a certificate is replaced.
	renewBefore = 30 * 24 * time.Hour
	// caKey is the Secret's key of the CA certificate.
	caKey = "ca.crt"
)

// certificate keeps the adapter's serving certificate: made once, shared through a Secret, its CA written into the APIServices,
// renewed before it ends. It is a dynamiccertificates.CertKeyContentProvider and safe for concurrent use.
type certificate struct {
	kube      kubernetes.Interface
	dyn       dynamic.Interface
	namespace string
	services  []string
	log       *slog.Logger
	clock     func() time.Time

	mu        sync.Mutex
	cert, key []byte
	ca        []byte
	listeners []dynamiccertificates.Listener
}

// Name names the provider in the API server's logs.
func (c *certificate) Name() string { return tlsSecret }

// CurrentCertKeyContent returns certificate and key as PEM.
func (c *certificate) CurrentCertKeyContent() ([]byte, []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert, c.key
}

// AddListener registers whoever is to be told of a new certificate.
func (c *certificate) AddListener(l dynamiccertificates.Listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, l)
}

// run keeps the certificate young and the APIServices' CA right until ctx ends.
func (c *certificate) run(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		next := time.Minute
		if err := errors.Join(c.ensure(ctx), c.announce(ctx)); err != nil && ctx.Err() == nil {
			c.log.WarnContext(ctx, "serving certificate not settled, will retry", slog.Any("error", err))
			next = time.Second
		}
		wait.Reset(next)
	}
}

// ensure reads the Secret, or makes it, or renews what is in it. Of several replicas that do so at once, one wins and the others
// read.
func (c *certificate) ensure(ctx context.Context) error {
	secrets := c.kube.CoreV1().Secrets(c.namespace)
	for range 5 {
		s, err := secrets.Get(ctx, tlsSecret, metav1.GetOptions{})
		switch {
		case err == nil && usable(s, c.clock()):
			c.take(s)
			return nil
		case err != nil && !apierrors.IsNotFound(err):
			return fmt.Errorf("read Secret %s: %w", tlsSecret, err)
		}
		fresh, genErr := c.generate()
		if genErr != nil {
			return genErr
		}
		if err == nil {
			fresh.ResourceVersion = s.ResourceVersion
			_, err = secrets.Update(ctx, fresh, metav1.UpdateOptions{})
		} else {
			_, err = secrets.Create(ctx, fresh, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("write Secret %s: %w", tlsSecret, err)
		}
	}
	return fmt.Errorf("write Secret %s: others keep writing it", tlsSecret)
}

func (c *certificate) generate() (*corev1.Secret, error) {
	host := adapterService + "." + c.namespace + ".svc"
	chain, key, err := cert.GenerateSelfSignedCertKey(host, nil, []string{adapterService + "." + c.namespace, host + ".cluster.local"})
	if err != nil {
		return nil, fmt.Errorf("make a certificate for %s: %w", host, err)
	}
	_, ca := pem.Decode(chain) // the serving certificate, then the CA that signed it
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: tlsSecret},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key, caKey: bytes.TrimSpace(ca)},
	}, nil
}

// usable tells whether a Secret holds a certificate that lasts a while.
func usable(s *corev1.Secret, now time.Time) bool {
	block, _ := pem.Decode(s.Data[corev1.TLSCertKey])
	if block == nil || len(s.Data[corev1.TLSPrivateKeyKey]) == 0 || len(s.Data[caKey]) == 0 {
		return false
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	return err == nil && now.Add(renewBefore).Before(leaf.NotAfter)
}

func (c *certificate) take(s *corev1.Secret) {
	c.mu.Lock()
	changed := !bytes.Equal(c.cert, s.Data[corev1.TLSCertKey])
	c.cert, c.key, c.ca = s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey], s.Data[caKey]
	told := c.listeners
	c.mu.Unlock()
	if changed {
		for _, l := range told {
			l.Enqueue()
		}
	}
}

// announce writes the CA into the APIServices that do not carry it. One that does not exist was not wanted.
func (c *certificate) announce(ctx context.Context) error {
	c.mu.Lock()
	ca := base64.StdEncoding.EncodeToString(c.ca)
	c.mu.Unlock()
	if ca == "" {
		return nil
	}
	client := c.dyn.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	var errs []error
	for _, name := range c.services {
		got, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			if !apierrors.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("read APIService %s: %w", name, err))
			}
			continue
		}
		spec, _ := got.Object["spec"].(map[string]any)
		service, _ := spec["service"].(map[string]any)
		if service["name"] != adapterService || service["namespace"] != c.namespace {
			c.log.WarnContext(ctx, "another provider is registered", slog.String("apiservice", name), slog.Any("service", service))
			continue
		}
		if spec["caBundle"] == ca {
			continue
		}
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"caBundle": ca}})
		if err != nil {
			return fmt.Errorf("encode the CA: %w", err)
		}
		if _, err := client.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			errs = append(errs, fmt.Errorf("write the CA into APIService %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
