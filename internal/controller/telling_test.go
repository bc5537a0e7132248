package controller_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/store"
)

// toldSecret is in the receivers' secrets: nothing may show it.
const toldSecret = "CANARY-of-the-receivers-0f9d2c7b5a"

// An ear is a webhook, a PagerDuty and the place that is pinged, in one.
type ear struct {
	*httptest.Server
	deaf  atomic.Bool
	pings atomic.Int64

	mu    sync.Mutex
	told  []notify.Message
	pages []map[string]any
}

func newEar(t *testing.T) *ear {
	e := &ear{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		defer e.mu.Unlock()
		switch {
		case strings.HasPrefix(r.URL.Path, "/ping"):
			e.pings.Add(1)
		case e.deaf.Load():
			http.Error(w, "I heard nothing of "+r.Header.Get("Certfarm-Signature")+string(body), http.StatusServiceUnavailable)
		case r.URL.Path == "/hook":
			var m notify.Message
			_ = json.Unmarshal(body, &m)
			e.told = append(e.told, m)
		case r.URL.Path == "/pager":
			var p map[string]any
			_ = json.Unmarshal(body, &p)
			e.pages = append(e.pages, p)
		}
	}))
	t.Cleanup(e.Close)
	return e
}

// messages are those of a cause that the webhook was told.
func (e *ear) messages(cause string) (all []notify.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.told {
		if m.Cause == cause {
			all = append(all, m)
		}
	}
	return all
}

// yaml is what farm.yaml says of it; the secrets stand in a file.
func (e *ear) yaml(dir string) string {
	file := filepath.Join(dir, "told.secret")
	_ = os.WriteFile(file, []byte(toldSecret+"\n"), 0o600)
	at := filepath.Join(dir, "ping.secret")
	_ = os.WriteFile(at, []byte(e.URL+"/ping/"+toldSecret+"\n"), 0o600)
	return strings.NewReplacer("URL", e.URL, "FILE", file, "PING", at).Replace(`
notifications:
  url: https://certfarm.example.com
  wait: 10s
  again: 1m
  receivers:
    desk:
      kind: webhook
      options: {url: "URL/hook", allow_private: [127.0.0.1]}
      secrets: {hmac: {file: "FILE"}}
    oncall:
      kind: pagerduty
      options: {url: "URL/pager", allow_private: [127.0.0.1]}
      secrets: {routing_key: {file: "FILE"}}
  routes:
    - to: desk
    - {to: oncall, severity: page}
  ping: {url: {file: "PING"}, every: 5m, allow_private: [127.0.0.1/32]}
`)
}

// tellingBed is a farm that serves, whose second controller works beside the first.
func tellingBed(t *testing.T, e *ear) *bed {
	var config controller.Config
	b, _ := serving(t, setting{
		edit:   func(_ *bed, text string) string { return text + e.yaml(t.TempDir()) },
		adjust: func(_ *bed, c *controller.Config) { config = *c },
	})
	config.Owner = "ctl_second"
	ctx, stop := context.WithCancel(b.ctx)
	var beside sync.WaitGroup
	beside.Go(func() {
		if err := controller.New(config).Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		beside.Wait()
	})
	return b
}

// heard waits until the webhook was told so many messages of a cause.
func (b *bed) heard(e *ear, cause string, n int) []notify.Message {
	b.t.Helper()
	b.until(cause+" is told", func(*store.Tx) (bool, error) { return len(e.messages(cause)) >= n, nil })
	all := e.messages(cause)
	if len(all) != n {
		b.t.Fatalf("%d messages, want %d: %+v", len(all), n, all)
	}
	return all
}

// A node fails: one message, though two controllers work. Another fails: the same notice.
// They are healed: it is over. Nobody is paged for that, and no secret is anywhere.
func TestPeopleAreTold(t *testing.T) {
	t.Parallel()
	e := newEar(t)
	b := tellingBed(t, e)
	b.rests()
	b.set("web1", lab.Down)
	b.look()
	b.happens("target.down", "")
	b.pass(15 * time.Second)
	first := b.heard(e, "reach", 1)[0]
	if first.State != notify.Began || first.Severity != "ticket" || len(first.Parts) != 1 || first.Parts[0].Node != "web1" || len(first.Sites) != 1 {
		t.Fatalf("%+v", first)
	}
	for _, says := range []string{"web1", "2 of 3 targets serve what they should", "is valid until", "Next, by itself at", "certfarm describe site", "https://certfarm.example.com/farms/"} {
		if !strings.Contains(first.Text, says) {
			t.Errorf("the message does not say %q:\n%s", says, first.Text)
		}
	}
	if n := len(e.messages("drift")); n > 0 {
		t.Errorf("what is away is told %d times more, as drift", n)
	}
	after := b.last()
	b.set("web2", lab.Down)
	b.look()
	b.happens("target.down", after)
	b.pass(2 * time.Minute)
	second := b.heard(e, "reach", 2)[1]
	if second.State != notify.Grew || second.Notice != first.Notice || len(second.Parts) != 2 {
		t.Errorf("%+v", second)
	}
	b.set("web1", lab.NoFault)
	b.set("web2", lab.NoFault)
	b.look()
	b.happens("target.up", after)
	b.until("both answer", func(tx *store.Tx) (bool, error) {
		return b.place("web1").Reach == "up" && b.place("web2").Reach == "up", nil
	})
	b.pass(15 * time.Second)
	if third := b.heard(e, "reach", 3)[2]; third.State != notify.Over || third.Notice != first.Notice {
		t.Errorf("%+v", third)
	}
	if len(e.pages) > 0 {
		t.Errorf("somebody was paged: %v", e.pages)
	}
	if e.pings.Load() == 0 {
		t.Error("no sign of life was sent")
	}
	b.holdsNoSecret()
}

// A receiver that does not hear holds nothing up: it is tried again, others are told, and
// it hears how it stands when it is back.
func TestAReceiverThatDoesNotHear(t *testing.T) {
	t.Parallel()
	e := newEar(t)
	b := tellingBed(t, e)
	b.rests()
	e.deaf.Store(true)
	b.set("web1", lab.Down)
	b.look()
	b.happens("target.down", "")
	b.pass(15 * time.Second)
	state := func() controller.ReceiverState {
		n, err := b.Controller.Notifications(b.ctx, b.Farm)
		must(t, err)
		return n.Receivers[slices.IndexFunc(n.Receivers, func(r controller.ReceiverState) bool { return r.Receiver == "desk" })]
	}
	for range 5 {
		b.pass(10 * time.Minute)
		if b.count(notify.Failing) > 0 {
			break
		}
		tries := state().Tries
		b.until("it is tried again", func(*store.Tx) (bool, error) { return state().Tries > tries || b.count(notify.Failing) > 0, nil })
	}
	b.happens(notify.Failing, "")
	if s := state(); s.Error == "" || s.Waiting == 0 {
		t.Errorf("%+v", s)
	}
	o, err := b.Controller.Overview(b.ctx, b.Farm, nil)
	must(t, err)
	if !slices.ContainsFunc(o.Deaf, func(r controller.ReceiverState) bool { return r.Receiver == "desk" }) {
		t.Errorf("the overview does not show it: %+v", o.Deaf)
	}
	if trials, err := b.Controller.TestReceivers(b.ctx, b.Farm, "desk", "ada"); err != nil || trials[0].Error == "" {
		t.Errorf("%+v, %v", trials, err)
	}
	e.deaf.Store(false)
	trials, err := b.Controller.TestReceivers(b.ctx, b.Farm, "", "ada")
	must(t, err)
	if len(trials) != 2 || trials[0].Error+trials[1].Error != "" || len(e.messages("test")) != 1 {
		t.Errorf("%+v", trials)
	}
	b.happens(notify.Hears, "")
	if all := b.heard(e, "reach", 1); all[0].Parts[0].Node != "web1" {
		t.Errorf("%+v", all)
	}
	b.holdsNoSecret()
}

// holdsNoSecret fails if a receiver's secret is in the log, the journal, or what the API
// tells.
func (b *bed) holdsNoSecret() {
	b.t.Helper()
	n, err := b.Controller.Notifications(b.ctx, b.Farm)
	must(b.t, err)
	text, err := json.Marshal(n)
	must(b.t, err)
	backup := string(b.backup())
	for where, text := range map[string]string{"the log": b.log.String(), "the journal": b.story(), "the API": string(text), "the store": backup} {
		if strings.Contains(text, toldSecret) || strings.Contains(text, toldSecret[:20]) {
			b.t.Errorf("%s tells a receiver's secret", where)
		}
	}
}
