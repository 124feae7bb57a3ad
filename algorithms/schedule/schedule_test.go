package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/schedule"
)

func office() schedule.Config {
	return schedule.Config{
		TimeZone: "Europe/Berlin", DefaultReplicas: 2,
		Rules: []schedule.Rule{
			{Name: "office", Start: "0 8 * * 1-5", End: "0 18 * * 1-5", Replicas: 20},
			{Name: "lunch", Start: "30 11 * * *", Duration: algorithms.Duration(90 * time.Minute), Replicas: 30},
			{Name: "night", Start: "30 2 * * *", End: "30 3 * * *", Replicas: 7},
		},
	}
}

func decide(t *testing.T, p *schedule.Policy, at string) algorithms.Decision {
	t.Helper()
	now, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	return p.Decide(algorithms.Observation{Now: now.UTC(), Limits: algorithms.Limits{Max: 100}})
}

func TestDecide(t *testing.T) {
	t.Parallel()
	p, err := schedule.New(office())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   string
		want int
		next time.Duration
	}{
		{"2026-11-23T07:59:59+01:00", 2, time.Second},
		{"2026-11-23T08:00:00+01:00", 20, 3*time.Hour + 30*time.Minute},
		{"2026-11-23T11:30:00+01:00", 30, 90 * time.Minute},
		{"2026-11-23T13:00:00+01:00", 20, 5 * time.Hour},
		{"2026-11-23T18:00:00+01:00", 2, 8*time.Hour + 30*time.Minute},
		{"2026-11-28T10:00:00+01:00", 2, 90 * time.Minute}, // a Saturday
		{"2026-11-28T12:00:00+01:00", 30, time.Hour},
		// Clocks go forward: 02:30 does not exist, the rule holds from 03:00 to 03:30.
		{"2027-03-28T01:59:59+01:00", 2, time.Second},
		{"2027-03-28T03:00:00+02:00", 7, 30 * time.Minute},
		{"2027-03-28T03:30:00+02:00", 2, 8 * time.Hour},
		// Clocks go back: 02:30 comes twice; the rule holds from the first, for two hours.
		{"2027-10-31T02:30:00+02:00", 7, 2 * time.Hour},
		{"2027-10-31T02:45:00+01:00", 7, 45 * time.Minute},
		{"2027-10-31T03:30:00+01:00", 2, 8 * time.Hour},
		// Summer time: eight o'clock is six in UTC.
		{"2027-07-05T06:00:00Z", 20, 3*time.Hour + 30*time.Minute},
	} {
		d := decide(t, p, c.at)
		if d.Replicas != c.want || d.Next != c.next || !d.Valid {
			t.Errorf("at %s: %d pods for %s, want %d for %s (%s)", c.at, d.Replicas, d.Next, c.want, c.next, d.Message)
		}
	}
}

// A rule whose start and end the same gap swallows does not hold on that day.
func TestSwallowedRule(t *testing.T) {
	t.Parallel()
	p, err := schedule.New(schedule.Config{TimeZone: "Europe/Berlin", DefaultReplicas: 1, Rules: []schedule.Rule{{Start: "15 2 * * *", End: "45 2 * * *", Replicas: 9}}})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]int{"2027-03-27T02:30:00+01:00": 9, "2027-03-28T03:00:00+02:00": 1, "2027-03-28T03:20:00+02:00": 1, "2027-03-29T02:30:00+02:00": 9} {
		if d := decide(t, p, at); d.Replicas != want {
			t.Errorf("at %s: %d pods, want %d", at, d.Replicas, want)
		}
	}
}

func TestLeadTime(t *testing.T) {
	t.Parallel()
	c := office()
	c.LeadTime = algorithms.Duration(10 * time.Minute)
	p, err := schedule.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]int{
		"2026-11-23T07:49:59+01:00": 2, "2026-11-23T07:50:00+01:00": 20, "2026-11-23T11:20:00+01:00": 30,
		"2026-11-23T12:59:59+01:00": 30, "2026-11-23T13:00:00+01:00": 20, "2026-11-23T18:00:00+01:00": 2,
	} {
		if d := decide(t, p, at); d.Replicas != want {
			t.Errorf("at %s: %d pods, want %d", at, d.Replicas, want)
		}
	}
}

// What is kept between decisions never changes an answer.
func TestFreshAgrees(t *testing.T) {
	t.Parallel()
	kept, err := schedule.New(office())
	if err != nil {
		t.Fatal(err)
	}
	for now, end := time.Date(2026, 10, 23, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC); now.Before(end); now = now.Add(17 * time.Minute) {
		fresh, err := schedule.New(office())
		if err != nil {
			t.Fatal(err)
		}
		o := algorithms.Observation{Now: now}
		if a, b := kept.Decide(o), fresh.Decide(o); a.Replicas != b.Replicas || a.Next != b.Next {
			t.Fatalf("at %s: kept %+v, fresh %+v", now, a, b)
		}
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 51, 5, func() (algorithms.Policy, error) { return schedule.New(office()) })
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*schedule.Config){
		"timeZone":              func(c *schedule.Config) { c.TimeZone = "Mars/Olympus" },
		"timeZone = \"Local\"":  func(c *schedule.Config) { c.TimeZone = "Local" },
		"rules[0].start: cron":  func(c *schedule.Config) { c.Rules[0].Start = "0 25 * * *" },
		"rules[0]: want exact":  func(c *schedule.Config) { c.Rules[0].Duration = algorithms.Duration(time.Hour) },
		"rules[1].duration":     func(c *schedule.Config) { c.Rules[1].Duration = 1 },
		"rules[0].replicas":     func(c *schedule.Config) { c.Rules[0].Replicas = -1 },
		"defaultReplicas = -1":  func(c *schedule.Config) { c.DefaultReplicas = -1 },
		"leadTime = -1ns: want": func(c *schedule.Config) { c.LeadTime = -1 },
	} {
		c := office()
		change(&c)
		if _, err := schedule.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want an error with %q", err, want)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p, err := schedule.New(office())
	if err != nil {
		b.Fatal(err)
	}
	o := algorithms.Observation{Now: policytest.Epoch(), Quiet: true}
	b.ReportAllocs()
	for b.Loop() {
		o.Now = o.Now.Add(time.Second)
		p.Decide(o)
	}
}
