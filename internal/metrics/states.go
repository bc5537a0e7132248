package metrics

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// A Source is where states are read.
type Source struct {
	// Measure reads the store; see controller.Controller.
	Measure func(context.Context) (controller.Measure, error)
	// Backup says when the last backup was made that this machine knows of; zero: none.
	Backup func() time.Time
	Log    *slog.Logger
}

// How often the store is read at most, however many ask, and how long it may take.
const (
	readEvery  = 10 * time.Second
	readWithin = 8 * time.Second // a scrape gives up after ten by default
)

// states is the collector of what is read off the store. One reading serves all who ask
// within a while.
type states struct {
	Source
	about map[string]*prometheus.Desc

	mu   sync.Mutex
	last controller.Measure
	err  error
	read time.Time
}

func newStates(s Source) *states {
	all := &states{Source: s, about: map[string]*prometheus.Desc{}}
	for _, d := range described() {
		all.about[d.name] = prometheus.NewDesc(prefix+d.name, d.help, d.labels, nil)
	}
	return all
}

// A description is one metric, as it is documented.
type description struct {
	name, help string
	labels     []string
}

// described lists the metrics that are states.
func described() []description {
	of := func(labels ...string) []string { return append([]string{"farm"}, labels...) }
	return []description{
		{"source_up", "Whether what follows could be read off the source just now: 1, else 0.", []string{"source"}},
		{"source_read_timestamp_seconds", "When it was read.", []string{"source"}},
		{"backup_last_success_timestamp_seconds", "When `certfarm backup` last wrote a backup with this state folder; 0: never.", nil},
		{"controllers", "Controllers on the database, by state: alive (heard of within 30 s) or silent.", []string{"state"}},
		{"controller_clock_skew_seconds", "How far the clock of a controller was ahead of the database's.", []string{"controller"}},
		{"agents_ca_not_after_timestamp_seconds", "End of the CA of the agents, where there is one. Another follows it by itself, two years before.", nil},
		{"agents_ca_unaware", "Agents that do not know yet of the CA that follows; 0 where none does.", nil},
		{"frozen", "Whether somebody stopped all activations: 1, else 0.", of()},
		{"certificate_not_before_timestamp_seconds", "Begin of a site's newest certificate.", of("certificate")},
		{"certificate_not_after_timestamp_seconds", "End of a site's newest certificate.", of("certificate")},
		{"certificate_renewal_timestamp_seconds", "When the next certificate is ordered, or since when it is due.", of("certificate")},
		{"certificate_ari_end_timestamp_seconds", "End of the time in which the CA wants the newest certificate renewed (RFC 9773), where it says.", of("certificate")},
		{"certificate_ready_status", "Whether there is a valid certificate whose last order and rollout did what they were to: 1 for the condition that holds (True, False, Unknown).", of("certificate", "condition")},
		{"certificate_failures", "Failures in a row: of orders, and of rollouts that were put back.", of("certificate", "of")},
		{"endpoint_served_not_after_timestamp_seconds", "End of the certificate that an endpoint was last seen to serve.", of("certificate", "node", "endpoint")},
		{"endpoint_in_sync", "Whether an endpoint was last seen to serve what it should: 1, else 0.", of("certificate", "node", "endpoint")},
		{"probe_age_seconds", "How long ago the site that was looked at longest ago was looked at, at most.", of()},
		{"endpoints_listed", "Whether every endpoint is told one by one (1), or only those that are not in sync since there are too many (0).", of()},
		{"targets", "Targets by node and standing.", of("node", "standing")},
		{"rollouts", "Rollouts that run, by state: running, waiting for a person, or back.", of("state")},
		{"ca_limit", "What a limit of a CA allows when nothing is used.", of("ca", "limit")},
		{"ca_limit_remaining", "What is left of a limit of a CA: of orders, new accounts, or the domain that has least.", of("ca", "limit")},
		{"jobs", "Jobs by state: running, waiting, or late (due for more than a minute, and nobody does them).", of("state")},
		{"job_lag_seconds", "How long the job has been due that waits longest for a controller.", of()},
		{"lease_epoch", "The highest epoch of all lanes: it grows as they are claimed.", of()},
	}
}

// Describe names every metric; see prometheus.Collector.
func (s *states) Describe(to chan<- *prometheus.Desc) {
	for _, d := range s.about {
		to <- d
	}
}

// measure reads the store, unless that was done a moment ago.
func (s *states) measure() (controller.Measure, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.read) < readEvery {
		return s.last, s.read, s.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readWithin)
	defer cancel()
	s.last, s.err = s.Measure(ctx)
	s.read = time.Now()
	if s.err != nil {
		s.Log.Error("read the store for metrics", "error", s.err)
	}
	return s.last, s.read, s.err
}

// Collect gives what was read; see prometheus.Collector. Where nothing could be read it
// says so, and that no more is known.
func (s *states) Collect(to chan<- prometheus.Metric) {
	p := pen{s.about, to}
	m, read, err := s.measure()
	p.put("source_up", truth(err == nil), "store")
	p.put("backup_last_success_timestamp_seconds", seconds(s.Backup()))
	if err != nil {
		return
	}
	p.put("source_read_timestamp_seconds", seconds(read), "store")
	alive, silent := m.Alive()
	p.put("controllers", float64(alive), "alive")
	p.put("controllers", float64(silent), "silent")
	for _, seat := range m.Seats {
		p.put("controller_clock_skew_seconds", seat.Skew.Seconds(), seat.Owner)
	}
	p.time("agents_ca_not_after_timestamp_seconds", m.CA.Ends)
	p.put("agents_ca_unaware", float64(len(m.CA.Unaware)))
	for _, f := range m.Farms {
		p.farm(f, m.At)
	}
}

// A pen writes metrics.
type pen struct {
	about map[string]*prometheus.Desc
	to    chan<- prometheus.Metric
}

func (p pen) put(name string, value float64, labels ...string) {
	p.to <- prometheus.MustNewConstMetric(p.about[name], prometheus.GaugeValue, value, labels...)
}

// time writes a time, unless it is not known.
func (p pen) time(name string, at time.Time, labels ...string) {
	if !at.IsZero() {
		p.put(name, seconds(at), labels...)
	}
}

func (p pen) farm(f controller.FarmMeasure, now time.Time) {
	p.put("frozen", truth(f.Frozen), f.Farm)
	for _, c := range f.Certificates {
		p.certificate(f.Farm, c, now)
	}
	for _, t := range f.Targets {
		p.put("targets", float64(t.Targets), f.Farm, t.Node, string(t.Standing))
	}
	p.places(f)
	for state, n := range f.Rollouts {
		p.put("rollouts", float64(n), f.Farm, state)
	}
	for _, l := range f.Limits {
		p.put("ca_limit", float64(l.Most), f.Farm, l.Issuer, l.Limit)
		p.put("ca_limit_remaining", l.Left, f.Farm, l.Issuer, l.Limit)
	}
	p.put("jobs", float64(f.Jobs.Running), f.Farm, "running")
	p.put("jobs", float64(f.Jobs.Waiting), f.Farm, "waiting")
	p.put("jobs", float64(f.Jobs.Late), f.Farm, "late")
	p.put("probe_age_seconds", f.Looked.Seconds(), f.Farm)
	p.put("job_lag_seconds", f.Waiting.Seconds(), f.Farm)
	p.put("lease_epoch", float64(f.Epoch), f.Farm)
}

func (p pen) certificate(farmName string, c controller.CertificateMeasure, now time.Time) {
	p.time("certificate_not_before_timestamp_seconds", c.NotBefore, farmName, c.Site)
	p.time("certificate_not_after_timestamp_seconds", c.NotAfter, farmName, c.Site)
	p.time("certificate_renewal_timestamp_seconds", c.Renewal, farmName, c.Site)
	p.time("certificate_ari_end_timestamp_seconds", c.WindowEnd, farmName, c.Site)
	ready, known := c.Ready(now)
	p.put("certificate_ready_status", truth(known && ready), farmName, c.Site, "True")
	p.put("certificate_ready_status", truth(known && !ready), farmName, c.Site, "False")
	p.put("certificate_ready_status", truth(!known), farmName, c.Site, "Unknown")
	p.put("certificate_failures", float64(c.Orders), farmName, c.Site, "orders")
	p.put("certificate_failures", float64(c.Retries), farmName, c.Site, "rollouts")
}

// places writes the endpoints one by one.
func (p pen) places(f controller.FarmMeasure) {
	p.put("endpoints_listed", truth(f.Whole), f.Farm)
	had := map[[3]string]bool{} // two targets may feed one endpoint
	for _, place := range f.Places {
		node := cmp.Or(place.Target.Node, place.Target.Kind)
		for _, e := range endpoints(place) {
			key := [3]string{place.Target.Site, node, e.name}
			if had[key] {
				continue
			}
			had[key] = true
			p.time("endpoint_served_not_after_timestamp_seconds", e.notAfter, f.Farm, place.Target.Site, node, e.name)
			p.put("endpoint_in_sync", truth(e.inSync), f.Farm, place.Target.Site, node, e.name)
		}
	}
}

// An endpoint is one of a target's, as it was last seen.
type endpoint struct {
	name     string
	notAfter time.Time // of what it serves; zero: it was not seen to serve anything
	inSync   bool
}

// endpoints are those of a target. Where one of them does not serve what it should, all
// are out of sync: the target is brought back as a whole. One that serves well and only
// cannot be reached for deployment is in sync.
func endpoints(p farm.Place) (all []endpoint) {
	inSync := len(p.Desired) > 0 && p.Late == "" && p.Drift == "" && p.Reach != farm.ReachDown
	seen := map[farm.Endpoint]farm.Sight{}
	for _, s := range p.Sights {
		seen[s.Endpoint] = s
	}
	for _, e := range p.Target.Endpoints {
		all = append(all, endpoint{name: e.Address, notAfter: seen[e].NotAfter, inSync: inSync})
	}
	return all
}

// truth is 1 or 0.
func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// seconds is a time as Prometheus has it; 0: none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
