package folder

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// CSV writes one line a result with all its fields, under their names in JSON, sorted by scenario,
// trace, policy and seed.
func CSV(w io.Writer, results []score.Result) error {
	c := csv.NewWriter(w)
	kind := reflect.TypeFor[score.Result]()
	var head []string
	for f := range kind.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		head = append(head, name)
	}
	if err := c.Write(head); err != nil {
		return err
	}
	sorted := slices.Clone(results)
	slices.SortStableFunc(sorted, func(a, b score.Result) int {
		return cmp.Or(strings.Compare(a.Scenario, b.Scenario), strings.Compare(a.Trace, b.Trace), strings.Compare(a.Policy, b.Policy), cmp.Compare(a.Seed, b.Seed))
	})
	for _, r := range sorted {
		v := reflect.ValueOf(r)
		line := make([]string, 0, len(head))
		for i := range v.NumField() {
			switch f := v.Field(i); f.Kind() {
			case reflect.Float64:
				line = append(line, strconv.FormatFloat(f.Float(), 'g', -1, 64))
			default:
				line = append(line, fmt.Sprint(f.Interface()))
			}
		}
		if err := c.Write(line); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}
