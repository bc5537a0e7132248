package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// done are the routes whose work is over when they answer.
func done() []string {
	return []string{
		"rekey", "plan", "plan-replacement", "doctor", "verify", "preflight", "audit", "test-target", "adopt", "agent-token",
		"roll-over", "create-token", "test-receivers",
	}
}

// TestLongWorkIsLinked: each POST leaves no work behind, or says in its answer where that
// shows.
func TestLongWorkIsLinked(t *testing.T) {
	_, d := description(t)
	for _, r := range api.Routes() {
		if r.Method == http.MethodPost && (r.Status == "") != slices.Contains(done(), r.ID) {
			t.Errorf("%s: is its work over, or where does it show?", r.ID)
		}
		if r.Status == "" {
			continue
		}
		if _, ok := d.Paths[r.Status]["get"]; !ok {
			t.Errorf("%s shows at %s, where nothing can be read", r.ID, r.Status)
		}
		described := false
		for _, res := range d.Paths[r.Path][strings.ToLower(r.Method)].Responses {
			described = described || res.Headers[api.LinkHeader] != nil
		}
		if !described {
			t.Errorf("%s does not describe its Link", r.ID)
		}
	}
}

var link = regexp.MustCompile(`^<([^>]+)>; rel="status", <([^>]+)>; rel="monitor"$`)

// TestLinksLeadToTheWork follows the links of an order, and of the same one sent again.
func TestLinksLeadToTheWork(t *testing.T) {
	d := open(t, true, "everything "+everything+"\n")
	text, err := json.Marshal(api.ApplyAsk{PlanAsk: api.PlanAsk{Text: farmYAML, File: "farm.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	applied := d.ask(t, "POST", "/v1/farms/shop/apply", string(text))
	if got, want := applied.head.Get(api.LinkHeader), `</v1/farms/shop/sites>; rel="status", </v1/farms/shop/events/follow>; rel="monitor"`; got != want {
		t.Errorf("apply: %s, not %s", got, want)
	}
	d.event(t, "before")
	for range 2 {
		renewed := d.ask(t, "POST", "/v1/farms/shop/sites/www/renew", "", api.KeyHeader, "k")
		to := link.FindStringSubmatch(renewed.head.Get(api.LinkHeader))
		if to == nil {
			t.Fatalf("renew: %v", renewed.head)
		}
		if shown := d.ask(t, "GET", to[1], ""); shown.status != http.StatusOK || !strings.Contains(shown.body, `"name":"www"`) {
			t.Errorf("%s: %d %s", to[1], shown.status, shown.body)
		}
		if renewed.head.Get(api.ReplayedHeader) == "" {
			d.event(t, "behind")
			if first := d.firstEvent(t, to[2]); !strings.Contains(first, "behind") {
				t.Errorf("%s begins with %s", to[2], first)
			}
		}
	}
	if none := d.ask(t, "POST", "/v1/farms/shop/sites/none/renew", ""); none.status != http.StatusNotFound || none.head.Get(api.LinkHeader) != "" {
		t.Errorf("what was not begun: %+v", none)
	}
}

// event writes an event of www into the journal.
func (d door) event(t *testing.T, text string) {
	t.Helper()
	err := d.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.AddEvent(t.Context(), farm.Event{Farm: "shop", Site: "www", Kind: "test", Level: farm.Info, Text: text})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// firstEvent is the first event of a stream.
func (d door) firstEvent(t *testing.T, path string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, "GET", d.config.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+everything)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	event := false
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if event && strings.HasPrefix(lines.Text(), "data:") {
			return lines.Text()
		}
		event = lines.Text() == "event: event"
	}
	t.Fatalf("%s: no event", path)
	return ""
}
