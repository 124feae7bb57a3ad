// Package ownership tells whether an APIService is as its provider needs it, and who wrote what is
// not. It is pure: `sluice check` asks it as well as the API server that watches its APIServices.
package ownership

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// APIService is as much of one as matters here.
type APIService struct {
	Metadata struct {
		Name          string            `json:"name"`
		UID           string            `json:"uid"`
		Labels        map[string]string `json:"labels"`
		Annotations   map[string]string `json:"annotations"`
		ManagedFields []ManagedFields   `json:"managedFields"`
	} `json:"metadata"`
	Spec struct {
		Service               *Service `json:"service"`
		CABundle              []byte   `json:"caBundle"`
		InsecureSkipTLSVerify bool     `json:"insecureSkipTLSVerify"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

// Service is where an APIService leads.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Port      *int32 `json:"port"`
}

// ManagedFields says who wrote which fields last.
type ManagedFields struct {
	Manager   string          `json:"manager"`
	Operation string          `json:"operation"`
	Time      time.Time       `json:"time"`
	FieldsV1  json.RawMessage `json:"fieldsV1"`
}

// Fields of an APIService's spec by which requests reach a provider.
const (
	FieldService  = "service"
	FieldCABundle = "caBundle"
	FieldInsecure = "insecureSkipTLSVerify"
)

// Fields lists them.
func Fields() []string { return []string{FieldService, FieldCABundle, FieldInsecure} }

// Owner says what APIServices are to be like. The zero value wants nothing.
type Owner struct {
	// Namespace and Service are where they lead.
	Namespace, Service string
	// CA gives the authority that is to be in them, nil while it is not known.
	CA func() []byte
	// Managers are the names under which the owner itself writes caBundle: what they wrote is not
	// foreign, since another replica may know a newer authority.
	Managers []string
}

// Wanted reports whether anything is wanted.
func (o *Owner) Wanted() bool { return o.Service != "" }

// Write is a field as somebody else wrote it.
type Write struct {
	// Field is one of Fields, Manager who wrote it, "unknown" where nothing says so. Is says what
	// it is now.
	Field, Manager, Is string
}

// String says what was written.
func (w Write) String() string {
	return fmt.Sprintf("spec.%s is %s, as %q wrote it: %s", w.Field, w.Is, w.Manager, w.Remedy())
}

// Remedy says what to do.
func (w Write) Remedy() string {
	if keda := strings.Contains(w.Manager, "keda"); keda && w.Field != FieldService {
		return "start keda-operator with --enable-apiservice-patching=false (KEDA 2.20; older ones cannot be told)"
	}
	if w.Field == FieldService {
		return "a cluster has one provider of each API: take the APIService out of what wrote it, or switch it off in Sluice's chart (apiServices)"
	}
	return "have it leave this APIService alone"
}

// Foreign lists the fields that somebody else wrote.
func (o *Owner) Foreign(s *APIService) []Write {
	var out []Write
	at := s.Spec.Service
	if at == nil || at.Namespace != o.Namespace || at.Name != o.Service {
		is := "nothing"
		if at != nil {
			is = printable(at.Namespace + "/" + at.Name)
		}
		out = append(out, Write{FieldService, s.Writer(FieldService), is})
		return out // what else it has is for whom it leads to
	}
	if s.Spec.InsecureSkipTLSVerify {
		out = append(out, Write{FieldInsecure, s.Writer(FieldInsecure), "true"})
	}
	var want []byte
	if o.CA != nil {
		want = o.CA()
	}
	if len(want) > 0 && !bytes.Equal(bytes.TrimSpace(want), bytes.TrimSpace(s.Spec.CABundle)) {
		// One that is empty was not announced yet, or was taken away: that is mended, and nobody's.
		if by := s.Writer(FieldCABundle); len(s.Spec.CABundle) > 0 && !slices.Contains(o.Managers, by) {
			out = append(out, Write{FieldCABundle, by, "another authority's"})
		}
	}
	return out
}

// Writer is who wrote a field of the spec last, "unknown" where nothing says so.
func (s *APIService) Writer(field string) string {
	writer, at := "unknown", time.Time{}
	for _, m := range s.Metadata.ManagedFields {
		var f struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if json.Unmarshal(m.FieldsV1, &f) != nil {
			continue
		}
		if _, ok := f.Spec["f:"+field]; ok && !m.Time.Before(at) {
			writer, at = printable(m.Manager), m.Time
		}
	}
	return writer
}

// printable is what may be shown of a text that somebody else wrote.
func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), 128)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
