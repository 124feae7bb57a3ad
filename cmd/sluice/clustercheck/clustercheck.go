// Package clustercheck says what of a cluster keeps metrics from their readers: APIServices that
// lead nowhere or to somebody else, and other providers that will take them.
package clustercheck

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/adapter/rules/check"
	"github.com/sluice-autoscaler/sluice/adapter/server/ownership"
)

// Kinds of findings, with what they mean.
func Kinds() map[string]string {
	return map[string]string{
		"apiservice":    "an APIService does not lead to a provider that answers",
		"foreign":       "somebody else writes to an APIService of Sluice",
		"requestheader": "the API server does not say who a caller is",
		"keda":          "KEDA will write its authority into an APIService of Sluice",
		"unknown":       "what is needed to tell could not be read",
	}
}

const (
	service       = "sluice-adapter"
	controller    = "sluice-controller"
	external      = "v1beta1.external.metrics.k8s.io"
	releaseLabel  = "meta.helm.sh/release-name"
	certificates  = "sluice-adapter-tls"
	kedaFlag      = "--enable-apiservice-patching"
	kedaFlagSince = 20
)

// apiServices are those that readers of metrics need. Wanted ones are missed where they are not.
func apiServices() []struct {
	name   string
	wanted bool
} {
	return []struct {
		name   string
		wanted bool
	}{{"v1beta1.custom.metrics.k8s.io", true}, {"v1beta2.custom.metrics.k8s.io", false}, {external, true}, {"v1beta1.metrics.k8s.io", false}, {"v1alpha1.explain.sluice.dev", false}}
}

// cluster is one that is looked at.
type cluster struct {
	kube     kubernetes.Interface
	rest     rest.Interface
	now      time.Time
	findings []check.Finding
}

// Look looks at a cluster. raw reads what the client has no types for. It changes nothing.
func Look(ctx context.Context, kube kubernetes.Interface, raw rest.Interface, now time.Time) []check.Finding {
	c := &cluster{kube: kube, rest: raw, now: now}
	found := map[string]*ownership.APIService{}
	for _, a := range apiServices() {
		s, err := c.apiService(ctx, a.name)
		switch {
		case apierrors.IsNotFound(err):
			if a.wanted {
				c.add(check.Remark, "APIService "+a.name, "apiservice", "there is none, so that no HorizontalPodAutoscaler reads such metrics; Sluice's chart makes it (apiServices)")
			}
		case err != nil:
			c.add(check.Doubt, "APIService "+a.name, "unknown", "it cannot be read: %v", err)
		default:
			found[a.name] = s
			c.look(ctx, a.name, s)
		}
	}
	c.requestheader(ctx)
	c.keda(ctx, found[external])
	return c.findings
}

func (c *cluster) add(level check.Level, field, kind, format string, args ...any) {
	c.findings = append(c.findings, check.Finding{Level: level, Field: field, Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// apiService reads one.
func (c *cluster) apiService(ctx context.Context, name string) (*ownership.APIService, error) {
	text, err := c.rest.Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/" + name).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	s := &ownership.APIService{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read it: %w", err)
	}
	return s, nil
}

// look says in one line what is wrong with an APIService: the first thing on the way of a request.
func (c *cluster) look(ctx context.Context, name string, s *ownership.APIService) {
	field := "APIService " + name
	at := s.Spec.Service
	if at == nil {
		c.add(check.Fault, field, "apiservice", "it has no service, so that the API server answers it itself: want service %s", service)
		return
	}
	where := at.Namespace + "/" + at.Name
	ours := at.Name == service
	if !ours {
		c.add(check.Remark, field, "foreign", "it leads to %s, which is not Sluice, as %q wrote it: it can become a delegate (docs/delegation.md)", where, s.Writer(ownership.FieldService))
	}
	if release := s.Metadata.Annotations[releaseLabel]; ours && release != "" && strings.Contains(release, "keda") {
		c.add(check.Doubt, field, "foreign", "it belongs to the Helm release %q, whose next upgrade takes it away: have that chart leave it out", release)
	}
	if fault := c.endpoints(ctx, at); fault != "" {
		c.add(check.Fault, field, "apiservice", "service %s: %s", where, fault)
		return
	}
	if fault, kind := c.bundle(ctx, s, ours); fault != "" {
		c.add(check.Fault, field, kind, "%s", fault)
		return
	}
	for _, cond := range s.Status.Conditions {
		if cond.Type == "Available" && cond.Status != "True" {
			c.add(check.Fault, field, "apiservice", "the API server does not reach %s: %s%s", where, cond.Message, hint(cond.Reason, cond.Message))
		}
	}
}

// hint says what a reason of the API server most often comes of.
func hint(reason, message string) string {
	switch {
	case strings.Contains(message, "x509"):
		return " (caBundle is not of whoever signed the provider's certificate)"
	case strings.Contains(message, "401") || strings.Contains(message, "403") || strings.Contains(message, "forbidden") || strings.Contains(message, "Unauthorized"):
		return " (the provider does not take the API server's word for who asks: see its rights on ConfigMap kube-system/extension-apiserver-authentication)"
	case strings.Contains(message, "deadline exceeded") || strings.Contains(message, "timeout"):
		return " (nothing answers at the port: a firewall or NetworkPolicy between API server and pods)"
	case reason == "":
		return " (the API server has not tried yet)"
	}
	return ""
}

// endpoints says why a request does not get to a pod.
func (c *cluster) endpoints(ctx context.Context, at *ownership.Service) string {
	port := int32(443)
	if at.Port != nil {
		port = *at.Port
	}
	svc, err := c.kube.CoreV1().Services(at.Namespace).Get(ctx, at.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "there is no such Service"
	case err != nil:
		c.add(check.Doubt, "Service "+at.Namespace+"/"+at.Name, "unknown", "it cannot be read: %v", err)
		return ""
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return ""
	}
	i := slices.IndexFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port })
	if i < 0 {
		var have []string
		for _, p := range svc.Spec.Ports {
			have = append(have, strconv.Itoa(int(p.Port)))
		}
		return fmt.Sprintf("it has no port %d, which the APIService names; it has %s", port, strings.Join(have, ", "))
	}
	listed, err := c.kube.DiscoveryV1().EndpointSlices(at.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + at.Name})
	if err != nil {
		c.add(check.Doubt, "Service "+at.Namespace+"/"+at.Name, "unknown", "its endpoints cannot be read: %v", err)
		return ""
	}
	known, ready, named := 0, 0, false
	for _, s := range listed.Items {
		for _, p := range s.Ports {
			named = named || p.Name != nil && *p.Name == svc.Spec.Ports[i].Name && p.Port != nil
		}
		for _, e := range s.Endpoints {
			known++
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready++
			}
		}
	}
	switch {
	case known == 0:
		return "it has no endpoints: no pod has its labels"
	case ready == 0:
		return fmt.Sprintf("none of its %d pods is ready", known)
	case !named:
		return fmt.Sprintf("its pods do not have the port %s of port %d", svc.Spec.Ports[i].TargetPort.String(), port)
	}
	return ""
}

// bundle says what is wrong with an APIService's authority.
func (c *cluster) bundle(ctx context.Context, s *ownership.APIService, ours bool) (fault, kind string) {
	if s.Spec.InsecureSkipTLSVerify {
		c.add(check.Doubt, "APIService "+s.Metadata.Name, "apiservice", "insecureSkipTLSVerify: whoever answers in the provider's place is believed")
		return "", ""
	}
	if len(s.Spec.CABundle) == 0 {
		if ours {
			return "caBundle is empty: the controller writes it once it runs and may patch APIServices", "apiservice"
		}
		return "", "" // the API server's own authorities
	}
	valid := false
	for rest := s.Spec.CABundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		valid = valid || err == nil && c.now.Before(cert.NotAfter) && !c.now.Before(cert.NotBefore)
	}
	if !valid {
		return fmt.Sprintf("caBundle has no certificate that is valid now, as %q wrote it", s.Writer(ownership.FieldCABundle)), "apiservice"
	}
	if !ours {
		return "", ""
	}
	secret, err := c.kube.CoreV1().Secrets(s.Spec.Service.Namespace).Get(ctx, certificates, metav1.GetOptions{})
	switch {
	case err != nil: // few may read it; who wrote the field tells as well
		if by := s.Writer(ownership.FieldCABundle); by != controller && by != "unknown" {
			return ownership.Write{Field: ownership.FieldCABundle, Manager: by, Is: "not what the controller wrote"}.String(), "foreign"
		}
	case !bytes.Equal(bytes.TrimSpace(secret.Data["ca.crt"]), bytes.TrimSpace(s.Spec.CABundle)):
		return ownership.Write{Field: ownership.FieldCABundle, Manager: s.Writer(ownership.FieldCABundle), Is: "another authority's than " + certificates + "'s"}.String(), "foreign"
	}
	return "", ""
}

// requestheader looks for what the API server says of the users that it passes on.
func (c *cluster) requestheader(ctx context.Context) {
	const field = "ConfigMap kube-system/extension-apiserver-authentication"
	m, err := c.kube.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		c.add(check.Fault, field, "requestheader", "there is none: the API server's aggregation layer is off")
	case err != nil:
		c.add(check.Doubt, field, "unknown", "it cannot be read: %v", err)
	case m.Data["requestheader-client-ca-file"] == "":
		c.add(check.Fault, field, "requestheader", "it has no requestheader-client-ca-file: start the API server with --requestheader-client-ca-file, --proxy-client-cert-file and --proxy-client-key-file")
	}
}

// keda looks for KEDA operators that write to the APIService.
func (c *cluster) keda(ctx context.Context, s *ownership.APIService) {
	all, err := c.kube.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		c.add(check.Doubt, "Deployments", "unknown", "they cannot be listed, to look for KEDA: %v", err)
		return
	}
	for i := range all.Items {
		d := &all.Items[i]
		container := kedaOperator(d)
		if container == nil {
			continue
		}
		field := fmt.Sprintf("Deployment %s/%s", d.Namespace, d.Name)
		level, when := check.Doubt, "once Sluice has that APIService"
		if s != nil && s.Spec.Service != nil && s.Spec.Service.Name == service {
			level, when = check.Fault, "so that nobody is answered"
		}
		given, off := patching(container)
		switch minor := kedaMinor(container.Image); {
		case off:
		case minor > 0 && minor < kedaFlagSince:
			c.add(level, field, "keda", "KEDA 2.%d writes its authority into APIService %s, %s, and has no flag against it: update to 2.%d and set %s=false", minor, external, when, kedaFlagSince, kedaFlag)
		case given:
			c.add(level, field, "keda", "%s is true, so that KEDA writes its authority into APIService %s, %s: set it to false", kedaFlag, external, when)
		default:
			c.add(level, field, "keda", "%s=false is missing, so that KEDA writes its authority into APIService %s, %s", kedaFlag, external, when)
		}
	}
}

// kedaOperator is the container of a Deployment that is KEDA's operator, nil for others.
func kedaOperator(d *appsv1.Deployment) *corev1.Container {
	labelled := d.Labels["app.kubernetes.io/name"] == "keda-operator" || d.Labels["app"] == "keda-operator" || d.Name == "keda-operator"
	for i := range d.Spec.Template.Spec.Containers {
		c := &d.Spec.Template.Spec.Containers[i]
		image, _, _ := strings.Cut(c.Image, "@")
		image = image[strings.LastIndex(image, "/")+1:]
		image, _, _ = strings.Cut(image, ":")
		if image == "keda" || labelled && (c.Name == "keda-operator" || len(d.Spec.Template.Spec.Containers) == 1) {
			return c
		}
	}
	return nil
}

// patching reads the flag: whether it is given, and whether it says no. The last one counts.
func patching(c *corev1.Container) (given, off bool) {
	for _, arg := range slices.Concat(c.Command, c.Args) {
		if name, value, ok := strings.Cut(arg, "="); name == kedaFlag {
			yes, err := strconv.ParseBool(value)
			given, off = true, ok && err == nil && !yes
		}
	}
	return given, off
}

// kedaMinor is the minor version of KEDA 2 that an image's tag names, 0 where it names none.
func kedaMinor(image string) int {
	image, _, _ = strings.Cut(image, "@")
	_, tag, ok := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	parts := strings.Split(strings.TrimPrefix(tag, "v"), ".")
	if !ok || len(parts) < 2 || parts[0] != "2" {
		return 0
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0
	}
	return n
}
