package node

import (
	"context"
	"fmt"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
)

type listOptions = metav1.ListOptions

// requestTimeout bounds one call to the API server.
const requestTimeout = 10 * time.Second

// apiObjects gets configuration from the API server: as it is at the time of asking, so that a pod
// made right after its ConfigMap finds it.
type apiObjects struct {
	client   kubernetes.Interface
	services listers.ServiceLister
}

// ConfigMap implements objects.
func (o *apiObjects) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cm, err := o.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	return cm, missing(err, "configmap", name)
}

// Secret implements objects.
func (o *apiObjects) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := o.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	return s, missing(err, "secret", name)
}

func missing(err error, kind, name string) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s %q %w", kind, name, errMissing)
	}
	return err
}

// Services implements objects, from a cache.
func (o *apiObjects) Services(namespace string) []*v1.Service {
	list, err := o.services.Services(namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	if namespace != metav1.NamespaceDefault {
		if s, err := o.services.Services(metav1.NamespaceDefault).Get("kubernetes"); err == nil {
			list = append(list, s)
		}
	}
	return list
}

// Token implements tokens.
func (o *apiObjects) Token(ctx context.Context, pod *v1.Pod, audience string, seconds int64) (string, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		req.Spec.Audiences = []string{audience}
	}
	name := pod.Spec.ServiceAccountName
	resp, err := o.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, name, req, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("fetch token of service account %s: %w", name, err)
	}
	return resp.Status.Token, resp.Status.ExpirationTimestamp.Time, nil
}
