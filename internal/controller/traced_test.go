package controller_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/trace"
)

// A receiver is a collector that takes OTLP over HTTP and keeps all that it is sent.
type receiver struct {
	mu   sync.Mutex
	raw  bytes.Buffer
	all  []*spans.Span
	fail []string
}

// ServeHTTP takes spans.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var in collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &in)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || req.URL.Path != "/v1/traces" {
		r.fail = append(r.fail, req.URL.Path)
	}
	r.raw.Write(body)
	for _, resource := range in.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			r.all = append(r.all, scope.Spans...)
		}
	}
}

// tracing sends the spans of each of a bed's controllers to a receiver; all of them
// are there when it is asked.
func tracing(t *testing.T) (adjust func(*bed, *controller.Config), got func() *receiver) {
	r := &receiver{}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	var tracers []*trace.Tracer
	adjust = func(b *bed, c *controller.Config) {
		tracer, err := trace.New(b.ctx, trace.Config{Endpoint: server.URL, Version: "test"})
		must(t, err)
		tracers = append(tracers, tracer)
		c.Tracer = tracer
	}
	return adjust, func() *receiver {
		t.Helper()
		for _, tracer := range tracers {
			must(t, tracer.Close(t.Context()))
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.fail) > 0 {
			t.Errorf("sent to %v, or no OTLP", r.fail)
		}
		return r
	}
}

// tree checks that the spans of a rollout are one tree, and counts them by name and the
// name of what they are in.
func (r *receiver) tree(t *testing.T, rollout string) map[string]int {
	t.Helper()
	names, heads := map[string]string{}, map[string]int{}
	var mine []*spans.Span
	for _, s := range r.all {
		if id := string(s.TraceId); hexed(id) == farm.TraceID(rollout) {
			mine = append(mine, s)
			names[string(s.SpanId)] = s.Name
		}
	}
	if len(names) != len(mine) {
		t.Errorf("%d spans have %d ids", len(mine), len(names))
	}
	for _, s := range mine {
		in, known := names[string(s.ParentSpanId)]
		if len(s.ParentSpanId) > 0 && !known {
			t.Errorf("%s is in a span that nobody wrote", s.Name)
		}
		if s.StartTimeUnixNano > s.EndTimeUnixNano || s.StartTimeUnixNano == 0 {
			t.Errorf("%s lasts from %d to %d", s.Name, s.StartTimeUnixNano, s.EndTimeUnixNano)
		}
		heads[strings.TrimPrefix(in+"/"+s.Name, "/")]++
	}
	return heads
}

func hexed(id string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(id) {
		b.WriteByte(digits[id[i]>>4])
		b.WriteByte(digits[id[i]&15])
	}
	return b.String()
}

// One trace has all of a rollout, though two controllers did it, one after the other;
// one id finds all that both logged of it.
func TestOneTraceAndOneIDThroughARollout(t *testing.T) {
	t.Parallel()
	adjust, got := tracing(t)
	b := newBed(t, setting{edit: assent, adjust: adjust})
	b.apply()
	b.waits("approval")
	b.restart(func() {})
	_, err := b.Controller.Tell(b.ctx, b.Farm, b.Site, controller.Approve, "careful", "somebody")
	must(t, err)
	r := b.ended(farm.Done, 1)
	b.rests()
	keys := b.secrets()
	must(t, b.StopController())
	seen := got()
	tree := seen.tree(t, r.ID)
	for name, n := range map[string]int{"rollout": 1, "rollout/order": 1, "rollout/stage": 3, "wave/activate": 3, "rollout/wave": len(r.Waves)} {
		if tree[name] != n {
			t.Errorf("%d spans %s, want %d: %v", tree[name], name, n, tree)
		}
	}
	if tree["wave/verify"] < 3 || tree["verify/probe"] < 3 {
		t.Errorf("%v", tree)
	}
	for name, key := range keys {
		if bytes.Contains(seen.raw.Bytes(), key) || strings.Contains(b.log.String(), string(key)) {
			t.Errorf("%s is in the traces or the log", name)
		}
	}
	b.logged(r)
}

// logged checks what the log says of a rollout's acts.
func (b *bed) logged(r farm.Rollout) {
	b.t.Helper()
	controllers, acts := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(b.log.String()) {
		if !strings.Contains(line, farm.TraceID(r.ID)) {
			if strings.Contains(line, r.ID) {
				b.t.Errorf("without the trace: %s", line)
			}
			continue
		}
		words := map[string]string{}
		for word := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(word, "=")
			words[name] = value
		}
		want := []string{"site", "rollout", "version", "farm", "controller"}
		if words["act"] != "" {
			want = append(want, "job", "node", "target", "wave", "attempt", "took")
			acts[words["node"]+" "+words["act"]] = true
		}
		for _, name := range want {
			if words[name] == "" && words["event"] == "" {
				b.t.Errorf("no %s in: %s", name, line)
			}
		}
		controllers[words["controller"]] = true
	}
	delete(controllers, "")
	if len(controllers) != 2 || len(acts) < 9 {
		b.t.Errorf("%d controllers and the acts %v are in the log", len(controllers), acts)
	}
}

// What is put back is in the trace, too, and says why.
func TestTheTraceOfARolloutThatGoesBack(t *testing.T) {
	t.Parallel()
	adjust, got := tracing(t)
	b := newBed(t, setting{adjust: adjust})
	b.apply()
	b.ended(farm.Done, 1)
	b.set("web1", lab.BadReload)
	b.renew()
	r := b.ended(farm.RolledBack, 2)
	must(t, b.StopController())
	seen := got()
	tree := seen.tree(t, r.ID)
	if tree["rollout"] != 1 || tree["rollout/restore"]+tree["rollout/discard"] == 0 {
		t.Errorf("%v", tree)
	}
	for _, s := range seen.all {
		if s.Name == "rollout" && hexed(string(s.TraceId)) == farm.TraceID(r.ID) && s.Status.GetCode() != spans.Status_STATUS_CODE_ERROR {
			t.Errorf("the rollout is said to be well: %v", s.Status)
		}
	}
}
