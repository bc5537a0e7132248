package cloud

import (
	"crypto/hmac"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/outbound"
)

const hookKey = "canary-of-an-hmac-0123456789abcdef"

// hook is a receiver as docs/targets.md describes it: it keeps versions by their
// leaves, in memory.
type hook struct {
	mu     sync.Mutex
	live   []string
	staged map[string][]string // by note: what was live at stage
	last   call
	answer func(w http.ResponseWriter, c call) bool // in place of ours
}

func newHook() *hook { return &hook{staged: map[string][]string{}} }

const standIn = "placeholder"

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	at := r.Header.Get("Certfarm-Time")
	seconds, _ := strconv.ParseInt(at, 10, 64)
	want := outbound.Sign(farm.NewSecret([]byte(hookKey)), at, body)
	if age := time.Since(time.Unix(seconds, 0)).Abs(); age > 5*time.Minute || !hmac.Equal([]byte(want), []byte(r.Header.Get("Certfarm-Signature"))) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"ok": false, "error": "the signature is wrong"}`)
		return
	}
	var c call
	if err := json.Unmarshal(body, &c); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = c
	if h.answer != nil && h.answer(w, c) {
		return
	}
	_ = json.NewEncoder(w).Encode(h.do(c))
}

func (h *hook) do(c call) map[string]any {
	var leaves []string
	for _, l := range c.Leaves {
		leaves = append(leaves, l.Fingerprint)
		if _, err := encode.Pair([]byte(l.Chain), []byte(l.Key)); c.Verb == "stage" && l.Key != "" && err != nil {
			return map[string]any{"ok": false, "error": err.Error()}
		}
	}
	switch c.Verb {
	case "stage":
		note := strconv.Itoa(len(h.staged) + 1)
		h.staged[note] = h.live
		return map[string]any{"ok": true, "note": note}
	case "activate":
		h.live = leaves
	case "restore":
		if before := h.staged[c.Note]; len(before) > 0 || len(h.live) > 0 {
			if h.live = before; len(before) == 0 {
				h.live = []string{standIn}
			}
		}
	case "inspect":
		if len(h.live) == 1 && h.live[0] == standIn {
			return map[string]any{"ok": true, "placeholder": true}
		}
		return map[string]any{"ok": true, "leaves": h.live}
	}
	return map[string]any{"ok": true}
}

func hooked(t *testing.T, over http.RoundTripper, change ...func(*webhook)) deploy.Deployer {
	t.Helper()
	o := webhook{URL: "https://hooks.example.org/certfarm", Timeout: "30s", Deliver: true}
	for _, c := range change {
		c(&o)
	}
	d, err := newWebhook(o, deploy.Setup{Secrets: map[string]farm.Secret{"hmac": farm.NewSecret([]byte(hookKey + "\n"))}}, over)
	must(t, err)
	return remember(d)
}

func TestWebhook(t *testing.T) {
	for name, deliver := range map[string]bool{"delivers": true, "tells": false} {
		t.Run(name, func(t *testing.T) {
			deploytest.Run(t, func(t *testing.T) deploytest.Bench {
				h := newHook()
				over := newWire(handler{h})
				return deploytest.Bench{
					Host: over.faulty, Target: deploytest.Target{Deployer: hooked(t, over, func(o *webhook) { o.Deliver = deliver })},
					Empty: func(deploytest.T) { h.live, h.staged = nil, map[string][]string{} },
				}
			})
		})
	}
}

func TestWebhookTells(t *testing.T) {
	h := newHook()
	ec, rsa := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.RSA2048)
	d := hooked(t, handler{h})
	r, err := d.Stage(t.Context(), deploy.Stage{Site: "shop", Names: deploytest.Names, Bundles: []farm.Bundle{ec, rsa}, Epoch: 7})
	must(t, err)
	c := h.last
	if c.Verb != "stage" || c.Farm != "lab" || c.Site != "shop" || c.Version != ec.Version || c.Epoch != 7 || len(c.Leaves) != 2 || c.Leaves[1].Fingerprint != rsa.Leaf || c.Leaves[1].Key != string(rsa.Key.Reveal()) {
		t.Errorf("it was told %+v", c)
	}
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	if c := h.last; c.Verb != "activate" || c.Note != "1" || c.Leaves[0].Key != "" || c.Leaves[0].Chain != "" || c.Epoch != 7 || c.Farm != "lab" {
		t.Errorf("it was told %+v", c)
	}
	holds(t, d, ec.Leaf, rsa.Leaf)
	d = hooked(t, handler{h}, func(o *webhook) { o.Deliver = false })
	_, err = d.Stage(t.Context(), stageOf(ec))
	must(t, err)
	if l := h.last.Leaves[0]; l.Key != "" || l.Chain != "" || l.Fingerprint != ec.Leaf {
		t.Errorf("without deliver it was told %+v", l)
	}
}

func TestWebhookAnswers(t *testing.T) {
	b := deploytest.NewBundle(t, farm.EC256)
	quoted, err := json.Marshal(map[string]any{"error": "cannot parse " + string(b.Key.Reveal()) + " signed with " + hookKey})
	must(t, err)
	for name, c := range map[string]struct {
		status int
		body   string
		words  []string
	}{
		"no":          {200, `{"ok": false, "error": "disk\nfull"}`, []string{"says no: disk full"}},
		"not ok":      {200, `{}`, []string{"says no"}},
		"no JSON":     {200, `OK`, []string{"JSON"}},
		"accepted":    {202, `{"ok": true}`, []string{"202"}},
		"too long":    {200, `{"ok": true, "note": "` + strings.Repeat("x", maxAnswer) + `"}`, []string{"bytes"}},
		"long note":   {200, `{"ok": true, "note": "` + strings.Repeat("x", maxNote+1) + `"}`, []string{"note"}},
		"busy":        {429, `{"error": "later"}`, []string{"429", "later", "wait: 9"}},
		"broken":      {500, `<html>`, []string{"500"}},
		"sends us on": {307, ``, []string{"redirect"}},
		"quotes us":   {400, string(quoted), []string{"400", "[secret]"}},
		"keeps a key": {200, `{"ok": true, "note": "` + strings.Split(string(b.Key.Reveal()), "\n")[1] + `"}`, []string{"holds the key"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHook()
			h.answer = func(w http.ResponseWriter, _ call) bool {
				w.Header().Set("Location", "https://elsewhere.example.net/")
				w.Header().Set("Retry-After", "9")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
				return true
			}
			_, err := hooked(t, handler{h}).Stage(t.Context(), stageOf(b))
			says(t, err, c.words, b.Key, farm.NewSecret([]byte(hookKey)))
			if errors.Is(err, host.ErrUnreachable) {
				t.Error("an answer counts as silence")
			}
		})
	}
	h := newHook()
	h.live = []string{"not-a-fingerprint"}
	_, err = hooked(t, handler{h}).Inspect(t.Context())
	says(t, err, []string{"no fingerprint"})
	_, err = newWebhook(webhook{URL: "https://a.example/", Timeout: "1s"}, deploy.Setup{Secrets: map[string]farm.Secret{"hmac": farm.NewSecret([]byte("short"))}}, nil)
	says(t, err, []string{"hmac has 5 bytes"})
}

// A controller that goes on with what another has staged says its own epoch, so
// that the receiver refuses whatever of the other is still under way.
func TestWebhookTellsWhoseLeaseItIs(t *testing.T) {
	h := newHook()
	open := func(epoch int64) deploy.Deployer {
		d, err := newWebhook(webhook{URL: "https://hooks.example.org/certfarm", Timeout: "30s", Deliver: true},
			deploy.Setup{Lease: deploy.Lease{Epoch: epoch}, Secrets: map[string]farm.Secret{"hmac": farm.NewSecret([]byte(hookKey))}}, handler{h})
		must(t, err)
		return d
	}
	s := stageOf(deploytest.NewBundle(t, farm.EC256))
	s.Epoch = 7
	r, err := open(7).Stage(t.Context(), s)
	must(t, err)
	for epoch, do := range map[int64]func(deploy.Deployer) error{
		9:  func(d deploy.Deployer) error { return d.Activate(t.Context(), []deploy.Receipt{r}) },
		11: func(d deploy.Deployer) error { return d.Restore(t.Context(), []deploy.Receipt{r}) },
		13: func(d deploy.Deployer) error { return d.Discard(t.Context(), r) },
	} {
		must(t, do(open(epoch)))
		if h.last.Epoch != epoch {
			t.Errorf("%s under the lease %d says %d", h.last.Verb, epoch, h.last.Epoch)
		}
	}
}

// TestSignature pins the signature, which receivers are written against: made with
// printf '1700000000.{"verb":"inspect"}' | openssl dgst -sha256 -hmac KEY
func TestSignature(t *testing.T) {
	got := outbound.Sign(farm.NewSecret([]byte(hookKey)), "1700000000", []byte(`{"verb":"inspect"}`))
	if want := "sha256=4ecdf5bb6dc38b9fbeeab633137c83cfb319cf7bcceeeea11cef435a637268b0"; got != want {
		t.Errorf("got %s", got)
	}
}

// caOf is the certificate of a test server, PEM.
func caOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func TestWebhookOverTLS(t *testing.T) {
	h := newHook()
	server := httptest.NewTLSServer(h)
	defer server.Close()
	kinds := deploy.NewKinds(All()...)
	open := func(at, proxy string, allow ...string) deploy.Deployer {
		t.Helper()
		options, err := json.Marshal(map[string]any{"url": at, "ca": caOf(server), "allow_private": allow, "deliver": true})
		must(t, err)
		d, err := kinds.Open("webhook", options, deploy.Setup{Secrets: map[string]farm.Secret{"hmac": farm.NewSecret([]byte(hookKey))}, Proxy: proxy})
		must(t, err)
		return d
	}
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	must(t, err)
	for _, at := range []string{server.URL, "https://localhost:" + port} {
		for _, proxy := range []string{"", "http://127.0.0.1:1"} {
			_, err = open(at, proxy).Inspect(t.Context())
			says(t, err, []string{"not a public address", "allow_private"})
			if errors.Is(err, host.ErrUnreachable) || h.last.Verb != "" {
				t.Fatalf("%s was dialled: %v", at, err)
			}
		}
	}
	d := open(server.URL, "", "127.0.0.1")
	b := deploytest.NewBundle(t, farm.EC256)
	install(t, d, b)
	holds(t, d, b.Leaf)
	if h.last.Verb != "inspect" {
		t.Errorf("it was told %+v", h.last)
	}
	server.Close()
	if _, err := d.Inspect(t.Context()); !errors.Is(err, host.ErrUnreachable) {
		t.Errorf("a server that is gone: %v", err)
	}
}

func TestWebhookThroughAProxy(t *testing.T) {
	var asked *url.URL
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL
		newHook().ServeHTTP(w, r)
	}))
	defer proxy.Close()
	d, err := deploy.NewKinds(All()...).Open("webhook", []byte(`{"url": "http://93.184.216.34/hook"}`),
		deploy.Setup{Secrets: map[string]farm.Secret{"hmac": farm.NewSecret([]byte(hookKey))}, Proxy: proxy.URL})
	must(t, err)
	holds(t, d)
	if asked == nil || asked.String() != "http://93.184.216.34/hook" {
		t.Errorf("the proxy was asked for %v", asked)
	}
}

func TestWebhookOptions(t *testing.T) {
	badOptions(t, "webhook", map[string]string{
		`{}`:                                "url",
		`{"url": "ftp://a.example/"}`:       "url",
		`{"url": "https://u:p@a.example/"}`: "url",
		`{"url": "http://a.example/", "deliver": true}`:                       "url",
		`{"url": "https://a.example/", "timeout": "1ms"}`:                     "timeout",
		`{"url": "https://a.example/", "timeout": ""}`:                        "timeout",
		`{"url": "https://a.example/", "allow_private": ["10.0.0.0"  , "x"]}`: "allow_private[1]",
		`{"url": "https://a.example/", "allow_private": ["0.0.0.0/0"]}`:       "allow_private[0]",
		`{"url": "https://a.example/", "allow_private": ["10.1.2.3/8"]}`:      "allow_private[0]",
		`{"url": "https://a.example/", "allow_private": ["::ffff:0:0/96"]}`:   "allow_private[0]",
		`{"url": "https://a.example/", "allow_private": ["::/0"]}`:            "allow_private[0]",
		`{"url": "https://a.example/", "ca": "x"}`:                            "ca",
		`{"url": "https://a.example/", "lag": "x"}`:                           "lag",
	})
	if _, err := Webhook().Check([]byte(`{"url": "https://a.example/"}`)); err == nil {
		t.Error("it works without a secret")
	}
	if _, err := Webhook().Check([]byte(`{"url": "http://a.example/", "allow_private": ["fc00::/7", "192.168.0.0/16"]}`), "hmac"); err != nil {
		t.Error(err)
	}
}

func TestHide(t *testing.T) {
	secret := farm.NewSecret([]byte("abcdefghijklmnopqrstuvwxyz\n0123456789"))
	for text, want := range map[string]string{
		"":                                   "",
		"plain words":                        "plain words",
		"x abcdefghijklmnopqrstuvwxyz y":     "x [secret] y",
		"cut off: klmnopqrstuvw…":            "cut off: [secret]…",
		"too little of it: klmnop":           "too little of it: klmnop",
		"two: abcdefghijklmn, nopqrstuvwxyz": "two: [secret], [secret]",
	} {
		if got := outbound.Hide(text, secret, farm.NewSecret([]byte("pin")), farm.Secret{}); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := outbound.Hide("my password", farm.NewSecret([]byte("password"))); got != "my [secret]" {
		t.Errorf("got %q", got)
	}
}

func TestLag(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "90m": 90 * time.Minute, "3d": 3 * day, "1d12h": 36 * time.Hour, "14d": maxLag} {
		if got, err := lagOf(text); got != want || err != nil {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"15d", "-1h", "d", "1d-1", "4", "337h", "1dx"} {
		if got, err := lagOf(text); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}
