package ownership_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/adapter/server/ownership"
)

// managed is who wrote a field of the spec.
func managed(manager, field, at string) string {
	return fmt.Sprintf(`{"manager":%q,"operation":"Update","time":%q,"fieldsV1":{"f:spec":{"f:%s":{}}}}`, manager, at, field)
}

func TestForeign(t *testing.T) {
	t.Parallel()
	bundle := func(ca string) string {
		return `"caBundle":"` + base64.StdEncoding.EncodeToString([]byte(ca)) + `"`
	}
	const ours = `"service":{"namespace":"sluice","name":"sluice-adapter","port":443}`
	for _, test := range []struct {
		name, spec, managers string
		want                 []ownership.Write
	}{
		{name: "ours", spec: ours + "," + bundle("own\n")},
		{name: "not announced yet", spec: ours},
		{name: "a newer authority of another replica", spec: ours + "," + bundle("next"), managers: managed("sluice-controller", "caBundle", "2026-11-30T10:00:00Z")},
		{
			name: "KEDA's rotator", spec: ours + "," + bundle("keda"),
			managers: managed("sluice-controller", "caBundle", "2026-11-30T10:00:00Z") + "," + managed("keda", "caBundle", "2026-11-30T10:00:05Z"),
			want:     []ownership.Write{{Field: "caBundle", Manager: "keda", Is: "another authority's"}},
		},
		{
			name: "nobody knows who", spec: ours + "," + bundle("keda"), managers: `{"manager":"x","fieldsV1":{"f:metadata":{}}},{"manager":"y"}`,
			want: []ownership.Write{{Field: "caBundle", Manager: "unknown", Is: "another authority's"}},
		},
		{
			name: "another provider", spec: `"service":{"namespace":"keda","name":"keda-metrics-apiserver"},` + bundle("keda"),
			managers: managed("helm", "service", "2026-11-30T10:00:00Z") + "," + strings.Replace(managed("kubectl", "service", "2026-11-30T10:00:01Z"), "kubectl", `kube\u0001ctl`, 1),
			want:     []ownership.Write{{Field: "service", Manager: "kube?ctl", Is: "keda/keda-metrics-apiserver"}},
		},
		{name: "local", spec: `"service":null`, want: []ownership.Write{{Field: "service", Manager: "unknown", Is: "nothing"}}},
		{
			name: "unverified", spec: ours + `,"insecureSkipTLSVerify":true`, managers: managed("helm", "insecureSkipTLSVerify", "2026-11-30T10:00:00Z"),
			want: []ownership.Write{{Field: "insecureSkipTLSVerify", Manager: "helm", Is: "true"}},
		},
	} {
		var s ownership.APIService
		if err := json.Unmarshal([]byte(`{"metadata":{"managedFields":[`+test.managers+`]},"spec":{`+test.spec+`}}`), &s); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		o := ownership.Owner{Namespace: "sluice", Service: "sluice-adapter", CA: func() []byte { return []byte("own") }, Managers: []string{"sluice-controller"}}
		if diff := cmp.Diff(test.want, o.Foreign(&s)); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
	if got := (ownership.Write{Field: "caBundle", Manager: "keda-operator", Is: "x"}).String(); !strings.Contains(got, "--enable-apiservice-patching=false") || !strings.Contains(got, `"keda-operator"`) {
		t.Errorf("the remedy is %s", got)
	}
	if (&ownership.Owner{}).Wanted() {
		t.Error("the zero value wants something")
	}
}
