// Package rbacaudit compares the rights that a program was given with those that it used, by the
// audit log of an API server. It is for tests.
package rbacaudit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Right is one verb on one resource, as one rule grants it.
type Right struct {
	Group, Resource, Verb string
	// Name is a resource's name where the rule names some, else "".
	Name string
}

// String is verb, resource and group.
func (r Right) String() string {
	out := r.Verb + " " + r.Resource
	if r.Group != "" {
		out += "." + r.Group
	}
	if r.Name != "" {
		out += " " + r.Name
	}
	return out
}

// event is what is read of a line of an audit log.
type event struct {
	Stage string `json:"stage"`
	Verb  string `json:"verb"`
	User  struct {
		Username string `json:"username"`
	} `json:"user"`
	Object *struct {
		Group       string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Annotations map[string]string `json:"annotations"`
}

// Report is what a log tells of a program.
type Report struct {
	// Unused are rights that no request needed; Refused are requests that were never allowed: an
	// API server that has just started refuses what it has not read the rights to yet. Both in
	// order.
	Unused, Refused []string
}

// Compare reads an audit log for the requests of a user, and says which of the rules' rights it did
// not use. Names of a rule count as one right: it is used when one of them is.
func Compare(rules []rbacv1.PolicyRule, user string, log io.Reader) (Report, error) {
	unused := map[Right][]string{} // with the names of its rule
	for i := range rules {
		r := &rules[i]
		for _, g := range r.APIGroups {
			for _, res := range r.Resources {
				for _, v := range r.Verbs {
					unused[Right{Group: g, Resource: res, Verb: v, Name: strings.Join(r.ResourceNames, "|")}] = r.ResourceNames
				}
			}
		}
	}
	refused, allowed := map[string]bool{}, map[string]bool{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return Report{}, fmt.Errorf("read line %d of the audit log: %w", n, err)
		}
		if e.User.Username != user || e.Object == nil || e.Stage == "RequestReceived" {
			continue
		}
		resource := e.Object.Resource
		if e.Object.Subresource != "" {
			resource += "/" + e.Object.Subresource
		}
		asked := Right{Group: e.Object.Group, Resource: resource, Verb: e.Verb, Name: e.Object.Name}
		if e.Annotations["authorization.k8s.io/decision"] == "forbid" {
			refused[asked.String()] = true
			continue
		}
		allowed[asked.String()] = true
		for right, names := range unused {
			if right.allows(asked, names) {
				delete(unused, right)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return Report{}, fmt.Errorf("read the audit log: %w", err)
	}
	var out Report
	for right := range unused {
		out.Unused = append(out.Unused, right.String())
	}
	slices.Sort(out.Unused)
	maps.DeleteFunc(refused, func(asked string, _ bool) bool { return allowed[asked] })
	out.Refused = slices.Sorted(maps.Keys(refused))
	return out, nil
}

// allows tells whether a right is one by which a request is allowed.
func (r Right) allows(asked Right, names []string) bool {
	group := r.Group == "*" || r.Group == asked.Group
	_, sub, ofAny := strings.Cut(r.Resource, "*/")
	resource := r.Resource == "*" || r.Resource == asked.Resource || ofAny && strings.HasSuffix(asked.Resource, "/"+sub)
	verb := r.Verb == "*" || r.Verb == asked.Verb
	return group && resource && verb && (len(names) == 0 || slices.Contains(names, asked.Name))
}
