// Package metrics tells Prometheus how the farms are and what this controller did.
//
//	store ── controller.Measure, at most every few seconds ──┐
//	controller ── controller.Meter, as it works ─────────────┼─→ /metrics
//
// Its invariants: what is a state is read off the store, so that every controller says
// the same and a restart forgets nothing; what is counted is of this process alone.
// Every label is one of few words: names of farms, sites, nodes and endpoints, never a
// fingerprint, a serial or what somebody wrote. Endpoints are told one by one only while
// there are not too many of them. Times are absolute, in seconds since 1970.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// A Book has the metrics of one controller: it is its controller.Meter, and what a
// Prometheus reads. It is safe for use by many goroutines at once.
type Book struct {
	registry *prometheus.Registry

	claimed  *prometheus.CounterVec
	jobs     *prometheus.HistogramVec
	panics   prometheus.Counter
	renewals *prometheus.CounterVec
	acts     *prometheus.HistogramVec
	ended    *prometheus.CounterVec
	requests *prometheus.CounterVec
	answers  *prometheus.HistogramVec
	polled   *prometheus.GaugeVec
	now      func() time.Time
}

var _ controller.Meter = (*Book)(nil)

// New makes a book with nothing counted yet; version is the program's.
func New(version string) *Book {
	b := &Book{
		registry: prometheus.NewRegistry(), now: time.Now,
		claimed:  counters("jobs_claimed_total", "Jobs that this controller claimed and began.", "kind"),
		jobs:     histograms("job_duration_seconds", "How long the jobs of this controller took, by how they ended: done, failed or panicked.", jobBuckets(), "kind", "result"),
		panics:   prometheus.NewCounter(prometheus.CounterOpts{Name: "certfarm_panics_total", Help: "Jobs of this controller that panicked."}),
		renewals: counters("renewal_attempts_total", "Tries of this controller to get a certificate that came to an end (issued, failed) or are held by a preflight (held), and why.", "farm", "result", "reason"),
		acts:     histograms("rollout_node_duration_seconds", "How long acts on one target took in rollouts, by act and how they ended: done, failed or lost.", actBuckets(), "act", "result"),
		ended:    counters("rollouts_ended_total", "Rollouts whose end this controller wrote, by outcome.", "farm", "outcome"),
		requests: counters("acme_requests_total", "Requests of this controller to CAs, by issuer, what was asked and HTTP status (none: no answer).", "ca", "endpoint", "code"),
		answers:  histograms("acme_request_duration_seconds", "How long CAs took to answer.", prometheus.DefBuckets, "ca", "endpoint"),
		polled:   gauges("ari_last_poll_timestamp_seconds", "When a CA last gave this controller renewal information (RFC 9773).", "ca"),
	}
	build := gauges("build_info", "1; the labels say what runs.", "version", "goversion")
	build.WithLabelValues(version, runtime.Version()).Set(1)
	b.registry.MustRegister(
		b.claimed, b.jobs, b.panics, b.renewals, b.acts, b.ended, b.requests, b.answers, b.polled, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return b
}

// The bounds of the histograms, in seconds: a job is most often a moment, and at most a
// few deadlines; an act is a reload or a few files over SSH.
func jobBuckets() []float64 { return []float64{.005, .02, .1, .5, 2, 10, 60, 300} }
func actBuckets() []float64 { return []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300} }

const prefix = "certfarm_"

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets}, labels)
}

// Job counts a job; see controller.Meter.
func (b *Book) Job(kind string) func(how string) {
	began := time.Now()
	b.claimed.WithLabelValues(kind).Inc()
	return func(how string) {
		b.jobs.WithLabelValues(kind, how).Observe(time.Since(began).Seconds())
		if how == controller.JobPanicked {
			b.panics.Inc()
		}
	}
}

// Renewed counts a try to get a certificate; see controller.Meter.
func (b *Book) Renewed(farmName, result, reason string) {
	b.renewals.WithLabelValues(farmName, result, reason).Inc()
}

// Acted counts an act on one target; see controller.Meter.
func (b *Book) Acted(verb farm.Verb, result string, took time.Duration) {
	b.acts.WithLabelValues(string(verb), result).Observe(took.Seconds())
}

// Ended counts a rollout; see controller.Meter.
func (b *Book) Ended(farmName string, how farm.Outcome) {
	b.ended.WithLabelValues(farmName, string(how)).Inc()
}

// Asked counts a request to a CA; see controller.Meter.
func (b *Book) Asked(ca, endpoint, code string, took time.Duration) {
	b.requests.WithLabelValues(ca, endpoint, code).Inc()
	b.answers.WithLabelValues(ca, endpoint).Observe(took.Seconds())
	if endpoint == "renewal-info" && code == "200" {
		b.polled.WithLabelValues(ca).Set(seconds(b.now()))
	}
}

// Handler answers scrapes with all that is known, what the source tells too. It asks
// nobody who they are: that is for the route before it.
func (b *Book) Handler(s Source) http.Handler {
	b.registry.MustRegister(newStates(s))
	return promhttp.HandlerFor(b.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}
