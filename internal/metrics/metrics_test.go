package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

var update = flag.Bool("update", false, "write the table of docs/monitoring.md anew")

// noon is when the measures of these tests are from.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// measured is a farm that has one of everything.
func measured(context.Context) (controller.Measure, error) {
	place := func(node string, p farm.Place) farm.Place {
		e := farm.Endpoint{Address: node + ":443"}
		p.Farm, p.Target = "shop", farm.Target{Site: "www", Node: node, Kind: "nginx", Endpoints: []farm.Endpoint{e}}
		p.Desired, p.Looked = []string{"v"}, noon
		p.Sights = []farm.Sight{{Endpoint: e, Answered: true, NotAfter: noon.Add(time.Hour)}}
		return p
	}
	return controller.Measure{
		At: noon,
		Seats: []store.Seat{
			{Owner: "a", Seen: noon, Skew: 2 * time.Second},
			{Owner: "b", Seen: noon.Add(-time.Minute)},
		},
		Farms: []controller.FarmMeasure{{
			Farm: "shop", Frozen: true,
			Certificates: []controller.CertificateMeasure{
				{Site: "www", NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), Renewal: noon.Add(30 * time.Minute), WindowEnd: noon.Add(40 * time.Minute)},
				{Site: "blog", NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), Orders: 3, Retries: 1},
				{Site: "new"},
			},
			Targets:  []store.Tally{{Node: "web1", Standing: farm.InSync, Targets: 7}},
			Places:   []farm.Place{place("web2", farm.Place{Drift: "it serves something else"}), place("web1", farm.Place{}), place("web1", farm.Place{})},
			Whole:    true,
			Rollouts: map[string]int{"running": 2},
			Limits:   []controller.LimitMeasure{{Issuer: "le", Limit: "orders", Most: 300, Left: 60}},
			Jobs:     store.JobCount{Running: 1, Waiting: 2, Late: 3},
			Waiting:  90 * time.Second, Looked: 5 * time.Minute, Epoch: 12,
		}},
	}, nil
}

// scrape is what a Prometheus is told.
func scrape(t *testing.T, s Source) string {
	t.Helper()
	b := New("1.2.3")
	b.now = func() time.Time { return noon }
	done := b.Job("look")
	done(controller.JobDone)
	b.Job("act")(controller.JobPanicked)
	b.Renewed("shop", "failed", "refused")
	b.Acted(farm.DoStage, "done", 3*time.Second)
	b.Ended("shop", farm.RolledBack)
	b.Asked("le", "renewal-info", "200", time.Second)
	b.Asked("le", "new-order", "none", time.Second)
	w := httptest.NewRecorder()
	b.Handler(s).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func source() Source {
	return Source{Measure: measured, Backup: func() time.Time { return noon.Add(-time.Hour) }, Log: slog.New(slog.DiscardHandler)}
}

func TestWhatIsScraped(t *testing.T) {
	text := scrape(t, source())
	for _, line := range []string{
		`certfarm_build_info{goversion="go`,
		`certfarm_source_up{source="store"} 1`,
		`certfarm_backup_last_success_timestamp_seconds 1.7951724e+09`,
		`certfarm_controllers{state="alive"} 1`,
		`certfarm_controllers{state="silent"} 1`,
		`certfarm_controller_clock_skew_seconds{controller="a"} 2`,
		`certfarm_frozen{farm="shop"} 1`,
		`certfarm_certificate_not_after_timestamp_seconds{certificate="www",farm="shop"} 1.7951796e+09`,
		`certfarm_certificate_not_before_timestamp_seconds{certificate="www",farm="shop"} 1.7951724e+09`,
		`certfarm_certificate_renewal_timestamp_seconds{certificate="www",farm="shop"} 1.7951778e+09`,
		`certfarm_certificate_ari_end_timestamp_seconds{certificate="www",farm="shop"} 1.7951784e+09`,
		`certfarm_certificate_ready_status{certificate="www",condition="True",farm="shop"} 1`,
		`certfarm_certificate_ready_status{certificate="blog",condition="False",farm="shop"} 1`,
		`certfarm_certificate_ready_status{certificate="new",condition="Unknown",farm="shop"} 1`,
		`certfarm_certificate_failures{certificate="blog",farm="shop",of="orders"} 3`,
		`certfarm_certificate_failures{certificate="blog",farm="shop",of="rollouts"} 1`,
		`certfarm_endpoint_in_sync{certificate="www",endpoint="web2:443",farm="shop",node="web2"} 0`,
		`certfarm_endpoint_in_sync{certificate="www",endpoint="web1:443",farm="shop",node="web1"} 1`,
		`certfarm_endpoint_served_not_after_timestamp_seconds{certificate="www",endpoint="web1:443",farm="shop",node="web1"} 1.7951796e+09`,
		`certfarm_endpoints_listed{farm="shop"} 1`,
		`certfarm_probe_age_seconds{farm="shop"} 300`,
		`certfarm_targets{farm="shop",node="web1",standing="in-sync"} 7`,
		`certfarm_rollouts{farm="shop",state="running"} 2`,
		`certfarm_ca_limit{ca="le",farm="shop",limit="orders"} 300`,
		`certfarm_ca_limit_remaining{ca="le",farm="shop",limit="orders"} 60`,
		`certfarm_jobs{farm="shop",state="late"} 3`,
		`certfarm_job_lag_seconds{farm="shop"} 90`,
		`certfarm_lease_epoch{farm="shop"} 12`,
		`certfarm_jobs_claimed_total{kind="look"} 1`,
		`certfarm_job_duration_seconds_count{kind="act",result="panicked"} 1`,
		`certfarm_panics_total 1`,
		`certfarm_renewal_attempts_total{farm="shop",reason="refused",result="failed"} 1`,
		`certfarm_rollout_node_duration_seconds_sum{act="stage",result="done"} 3`,
		`certfarm_rollouts_ended_total{farm="shop",outcome="restored"} 1`,
		`certfarm_acme_requests_total{ca="le",code="none",endpoint="new-order"} 1`,
		`certfarm_acme_request_duration_seconds_count{ca="le",endpoint="renewal-info"} 1`,
		`certfarm_ari_last_poll_timestamp_seconds{ca="le"} 1.795176e+09`,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("there is no line %s", line)
		}
	}
	if strings.Contains(text, `renewal_timestamp_seconds{certificate="new"`) {
		t.Error("a time that is not known is told")
	}
}

// One reading of the store serves all who ask within a while; where it cannot be read,
// that is told, and no old state as if it were one of now.
func TestTheStoreIsReadOnceForAll(t *testing.T) {
	var reads atomic.Int32
	s := source()
	s.Measure = func(ctx context.Context) (controller.Measure, error) {
		reads.Add(1)
		return measured(ctx)
	}
	h := New("").Handler(s)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
		})
	}
	all.Wait()
	if reads.Load() != 1 {
		t.Errorf("it was read %d times", reads.Load())
	}
	s.Measure = func(context.Context) (controller.Measure, error) {
		return controller.Measure{}, errors.New("the disk is gone")
	}
	text := scrape(t, s)
	if !strings.Contains(text, `certfarm_source_up{source="store"} 0`) || strings.Contains(text, "certfarm_frozen{") || !strings.Contains(text, "certfarm_panics_total 1") {
		t.Error(text)
	}
}

// exported are the metrics of our own, as they are gathered.
func exported(t *testing.T) (all []*dto.MetricFamily) {
	t.Helper()
	b := New("1")
	b.Job("look")(controller.JobDone)
	b.Renewed("", "", "")
	b.Acted(farm.DoStage, "done", 0)
	b.Ended("", farm.Done)
	b.Asked("le", "renewal-info", "200", 0)
	b.Handler(source())
	found, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if strings.HasPrefix(f.GetName(), prefix) {
			all = append(all, f)
		}
	}
	return all
}

func (all families) has(name string) bool {
	for _, f := range all {
		is := f.GetName()
		if name == is || f.GetType() == dto.MetricType_HISTOGRAM && slices.Contains([]string{is + "_bucket", is + "_sum", is + "_count"}, name) {
			return true
		}
	}
	return false
}

type families []*dto.MetricFamily

const monitoring = "../../docs/monitoring"

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRulesAndDashboardNameWhatThereIs: what the shipped files ask for, the program has.
func TestRulesAndDashboardNameWhatThereIs(t *testing.T) {
	all := families(exported(t))
	name := regexp.MustCompile(`\bcertfarm_[a-z_]+`)
	for _, file := range []string{"/alerts.yaml", "/alerts_test.yaml", "/grafana.json"} {
		text := read(t, monitoring+file)
		found := name.FindAllString(text, -1)
		if len(found) < 10 {
			t.Errorf("%s names %d metrics", file, len(found))
		}
		for _, n := range found {
			if !all.has(n) {
				t.Errorf("%s: there is no metric %s", file, n)
			}
		}
	}
	rules, cases := read(t, monitoring+"/alerts.yaml"), read(t, monitoring+"/alerts_test.yaml")
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1) {
		if !strings.Contains(cases, `alertname="`+m[1]+`"`) {
			t.Errorf("no case has the alert %s fire", m[1])
		}
	}
}

// TestTheAlertsFireAndStaySilent runs the cases by Prometheus' own promtool.
func TestTheAlertsFireAndStaySilent(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CERTFARM_REQUIRE") != "" {
			t.Fatal("promtool is not here")
		}
		t.Skip("promtool is not here: apt-get install prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}, {"check", "metrics"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir, cmd.Stdin = monitoring, strings.NewReader(scrape(t, source()))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestTheDashboardCanBeImported reads what Grafana needs of it.
func TestTheDashboardCanBeImported(t *testing.T) {
	var d struct {
		UID        string
		Title      string
		Templating struct {
			List []struct{ Name, Type string }
		}
		Panels []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     struct{ H, W, X, Y int }
			Targets     []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, monitoring+"/grafana.json")), &d); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.Type != "row" && (len(p.Targets) == 0 || p.Description == "") {
			t.Errorf("panel %d, %s", p.ID, p.Title)
		}
		ids[p.ID] = true
	}
	if d.UID == "" || d.Title == "" || len(d.Templating.List) != 2 || len(d.Panels) < 20 {
		t.Errorf("%s %s: %d panels", d.UID, d.Title, len(d.Panels))
	}
}

// TestTheTableOfTheDocs: docs/monitoring.md has a line for each metric, as it says of
// itself.
func TestTheTableOfTheDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("| metric | type | labels | what it is |\n|---|---|---|---|\n")
	for _, f := range exported(t) {
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	const file, from, to = monitoring + ".md", "<!-- metrics -->\n", "<!-- end -->"
	text := read(t, file)
	before, rest, ok := strings.Cut(text, from)
	_, after, ends := strings.Cut(rest, to)
	if !ok || !ends {
		t.Fatal("docs/monitoring.md has no place for the table")
	}
	is := before + from + b.String() + to + after
	switch {
	case is == text:
	case *update:
		if err := os.WriteFile(file, []byte(is), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("the table is not what the metrics say: go test ./internal/metrics -update")
	}
}
