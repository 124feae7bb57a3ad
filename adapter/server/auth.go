package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/authorization/path"
	"k8s.io/apiserver/pkg/authorization/union"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"
)

const (
	// reviewTimeout bounds one question to the cluster's API server; reviewTTL is how long its
	// answer is kept.
	reviewTimeout = 10 * time.Second
	reviewTTL     = 10 * time.Second
	// authConfigMap is where the cluster's API server publishes who signs its front proxy's
	// certificate.
	authConfigMap = "extension-apiserver-authentication"
)

// frontProxy follows what the ConfigMap says of the aggregation layer: its CA and the headers in
// which it passes users on.
type frontProxy struct {
	*dynamiccertificates.ConfigMapCAController
	headers *headerrequest.RequestHeaderAuthRequestController
}

// RunOnce reads the ConfigMap.
func (f *frontProxy) RunOnce(ctx context.Context) error {
	return errors.Join(f.ConfigMapCAController.RunOnce(ctx), f.headers.RunOnce(ctx))
}

// Run follows the ConfigMap until ctx ends.
func (f *frontProxy) Run(ctx context.Context, workers int) {
	var wg sync.WaitGroup
	wg.Go(func() { f.ConfigMapCAController.Run(ctx, workers) })
	wg.Go(func() { f.headers.Run(ctx, workers) })
	wg.Wait()
}

// authenticate takes users from the aggregation layer's headers, from client certificates of the
// cluster's CA and from tokens, which it has reviewed. The options of the library do the same, but
// only take a kubeconfig by file. The function that it returns says why users cannot be told yet.
func authenticate(config *genericapiserver.Config, client kubernetes.Interface) (func() error, error) {
	clients, err := dynamiccertificates.NewDynamicCAFromConfigMapController("client-ca", metav1.NamespaceSystem, authConfigMap, "client-ca-file", client)
	if err != nil {
		return nil, fmt.Errorf("follow the client CA: %w", err)
	}
	proxies, err := dynamiccertificates.NewDynamicCAFromConfigMapController("requestheader-client-ca", metav1.NamespaceSystem, authConfigMap, "requestheader-client-ca-file", client)
	if err != nil {
		return nil, fmt.Errorf("follow the front proxy's CA: %w", err)
	}
	proxy := &frontProxy{proxies, headerrequest.NewRequestHeaderAuthRequestController(authConfigMap, metav1.NamespaceSystem, client,
		"requestheader-username-headers", "requestheader-uid-headers", "requestheader-group-headers", "requestheader-extra-headers-prefix", "requestheader-allowed-names")}
	// The server runs, in order, whatever is among these.
	for _, ca := range []dynamiccertificates.CAContentProvider{clients, proxy} {
		if err := config.Authentication.ApplyClientCert(ca, config.SecureServing); err != nil {
			return nil, fmt.Errorf("verify client certificates: %w", err)
		}
	}
	header := &authenticatorfactory.RequestHeaderConfig{
		CAContentProvider:   proxy,
		UsernameHeaders:     headerrequest.StringSliceProviderFunc(proxy.headers.UsernameHeaders),
		UIDHeaders:          headerrequest.StringSliceProviderFunc(proxy.headers.UIDHeaders),
		GroupHeaders:        headerrequest.StringSliceProviderFunc(proxy.headers.GroupHeaders),
		ExtraHeaderPrefixes: headerrequest.StringSliceProviderFunc(proxy.headers.ExtraHeaderPrefixes),
		AllowedClientNames:  headerrequest.StringSliceProviderFunc(proxy.headers.AllowedClientNames),
	}
	authenticator, definitions, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		// for the probes; authorization follows
		Anonymous:                          &apiserverapi.AnonymousAuthConfig{Enabled: true},
		TokenAccessReviewClient:            client.AuthenticationV1(),
		TokenAccessReviewTimeout:           reviewTimeout,
		WebhookRetryBackoff:                genericoptions.DefaultAuthWebhookRetryBackoff(),
		CacheTTL:                           reviewTTL,
		ClientCertificateCAContentProvider: clients,
		RequestHeaderConfig:                header,
	}.New()
	if err != nil {
		return nil, err
	}
	config.Authentication.Authenticator, config.Authentication.RequestHeaderConfig = authenticator, header
	config.OpenAPIConfig.SecurityDefinitions = definitions
	return func() error {
		if _, ok := proxy.VerifyOptions(); !ok {
			return fmt.Errorf("the aggregation layer's CA is not known: ConfigMap %s/%s has not been read", metav1.NamespaceSystem, authConfigMap)
		}
		return nil
	}, nil
}

// authorize asks the cluster's API server what a user may do. The health paths are open to
// everyone, and system:masters may do everything.
func authorize(config *genericapiserver.Config, client kubernetes.Interface) error {
	paths, err := path.NewAuthorizer([]string{"/healthz", "/readyz", "/livez"})
	if err != nil {
		return fmt.Errorf("allow the health paths: %w", err)
	}
	review, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: client.AuthorizationV1(),
		AllowCacheTTL:             reviewTTL,
		DenyCacheTTL:              reviewTTL,
		WebhookRetryBackoff:       genericoptions.DefaultAuthWebhookRetryBackoff(),
	}.New()
	if err != nil {
		return err
	}
	config.Authorization.Authorizer, err = union.New(
		union.NamedAuthorizer{AuthorizerName: "masters", Authorizer: authorizerfactory.NewPrivilegedGroups("system:masters")},
		union.NamedAuthorizer{AuthorizerName: "health", Authorizer: paths},
		union.NamedAuthorizer{AuthorizerName: "review", Authorizer: review},
	)
	return err
}
