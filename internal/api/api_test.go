package api_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

var update = flag.Bool("update", false, "write the golden files")

// A farm.yaml whose CA nobody runs: what is asked of the controller is tested
// here, not what it does.
const farmYAML = `farm: shop
issuers:
  ca: {acme: https://127.0.0.1:1/dir}
nodes:
  here: {local: true}
sites:
  www:
    names: [www.example.com]
    targets:
      - {kind: files, on: here, options: {pem: /tmp/certfarm-test/www.pem}}
`

const hidden = "hunter2-and-some-more-words"

// door is a controller behind the API, on a real store.
type door struct {
	*client.Client
	config client.Config
	state  string
	store  *store.Store
	keys   *secret.Keyring
	log    *bytes.Buffer // of everything, down to debug
}

// open serves a controller whose jobs nobody does.
func open(t *testing.T, tcp bool, tokens string) door {
	t.Helper()
	d := door{state: shortDir(t), keys: secret.Fresh(), log: &bytes.Buffer{}}
	s, err := store.Open(t.Context(), filepath.Join(d.state, "certfarm.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.store = s
	log := slog.New(slog.NewJSONHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c, lines := controller.Real(s, d.keys, log)
	doors := api.Doors{Socket: filepath.Join(d.state, "certfarm.sock")}
	if tcp {
		file := filepath.Join(d.state, "tokens")
		if err := os.WriteFile(file, []byte(tokens), 0o600); err != nil {
			t.Fatal(err)
		}
		doors.TCP = "127.0.0.1:0"
		lines, err := access.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if doors.Gate, err = access.NewGate(access.Config{Store: s, File: lines}); err != nil {
			t.Fatal(err)
		}
	}
	doors.Log = log
	listening, err := api.Listen(api.New(api.Config{Controller: controller.New(c), Version: "test", Log: log}), doors)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- listening.Serve(ctx) }()
	d.config = client.Config{Socket: doors.Socket, Actor: "alice"}
	if tcp {
		d.config.URL = "http://" + listening.Addrs()[1].String()
	}
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, lines.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(doors.Socket); err == nil {
			t.Error("the socket is still there")
		}
	})
	d.Client = d.client(t, d.config)
	return d
}

func (d door) client(t *testing.T, c client.Config) *client.Client {
	t.Helper()
	cl, err := client.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// shortDir is a folder whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cf") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (d door) apply(t *testing.T, text string, was int64) controller.Plan {
	t.Helper()
	p, err := d.Apply(t.Context(), "shop", []byte(text), "farm.yaml", was)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestApplyAndAsk(t *testing.T) {
	d := open(t, false, "")
	ctx := t.Context()
	p, err := d.Plan(ctx, "shop", []byte(farmYAML), "farm.yaml")
	if err != nil || p.Revision != 0 || len(p.Changes) == 0 {
		t.Fatalf("plan %+v, %v", p, err)
	}
	if p := d.apply(t, farmYAML, 0); p.Revision != 1 {
		t.Errorf("revision %d", p.Revision)
	}
	f, err := d.FarmFile(ctx, "shop")
	if err != nil || f.Text != farmYAML || f.By != "alice" || f.Revision != 1 {
		t.Errorf("farm file %+v, %v", f, err)
	}
	sites, err := d.Sites(ctx, "shop")
	if err != nil || len(sites) != 1 || sites[0].Name != "www" || sites[0].Sync != "unknown" {
		t.Errorf("sites %+v, %v", sites, err)
	}
	target, err := d.Target(ctx, "shop", "www/files@here") // a slash in a path's word
	if err != nil || target.Node != "here" {
		t.Errorf("target %+v, %v", target, err)
	}
	busy, err := d.Progress(ctx, "shop", "www")
	if err != nil || len(busy) != 1 || busy[0].Rest {
		t.Errorf("nobody has looked at the new site yet, but it rests: %+v, %v", busy, err)
	}
	if err := d.Hold(ctx, "shop", "here", true); err != nil {
		t.Fatal(err)
	}
	if n, err := d.NodeStatus(ctx, "shop", "here"); err != nil || n.Held != "alice" {
		t.Errorf("node %+v, %v", n, err)
	}
	if err := d.Freeze(ctx, "shop", true); err != nil {
		t.Fatal(err)
	}
	if f, err := d.FarmFile(ctx, "shop"); err != nil || f.Frozen != "alice" {
		t.Errorf("frozen by %q, %v", f.Frozen, err)
	}
}

func TestSitesComeInPages(t *testing.T) {
	d := open(t, false, "")
	var b strings.Builder
	b.WriteString(strings.Split(farmYAML, "sites:")[0] + "sites:\n")
	for i := range 5 {
		fmt.Fprintf(&b, "  s%d: {names: [s%d.example.com], targets: [{kind: files, on: here, options: {pem: /tmp/certfarm-test/%d.pem}}]}\n", i, i, i)
	}
	d.apply(t, b.String(), 0)
	var page api.Sites
	d.get(t, "/v1/farms/shop/sites?limit=2&after=s1", &page)
	if len(page.Sites) != 2 || page.Sites[0].Name != "s2" || page.Next != "s3" {
		t.Errorf("page %+v", page)
	}
	if all, err := d.Sites(t.Context(), "shop"); err != nil || len(all) != 5 {
		t.Errorf("%d sites, %v", len(all), err)
	}
}

func TestErrorsComeBackAsTheyWere(t *testing.T) {
	d := open(t, false, "")
	ctx := t.Context()
	d.apply(t, farmYAML, 0)

	_, err := d.Apply(ctx, "shop", []byte(farmYAML), "farm.yaml", 0)
	conflict, ok := errors.AsType[*store.Conflict](err)
	if !ok || conflict.By != "alice" || conflict.Revision != 1 || conflict.At.IsZero() {
		t.Errorf("conflict: %v", err)
	}
	_, err = d.Plan(ctx, "shop", []byte(strings.Replace(farmYAML, "files", "flies", 1)), "farm.yaml")
	ms, ok := errors.AsType[config.Mistakes](err)
	if !ok || len(ms) != 1 || ms[0].Line != 10 || ms[0].Column == 0 || !strings.Contains(ms[0].Picture, "flies") || ms[0].Hint == "" {
		t.Errorf("mistakes: %#v", err)
	}
	err = d.Retire(ctx, "shop", "www/files@here")
	refusal, ok := errors.AsType[*controller.Refusal](err)
	if !ok || refusal.Hint == "" {
		t.Errorf("refusal: %#v", err)
	}
	_, err = d.Describe(ctx, "shop", "wwww")
	if !errors.Is(err, store.ErrNotFound) || err.Error() != "site wwww: not found" {
		t.Errorf("not found: %v", err)
	}
	_, err = d.Plan(ctx, "other", []byte(farmYAML), "farm.yaml")
	if _, ok := errors.AsType[*controller.Refusal](err); !ok {
		t.Errorf("the farm of another name was planned: %v", err)
	}
	_, err = d.Events(ctx, "shop", store.EventQuery{Level: "loud"})
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Kind() != api.Invalid || len(p.Faults) == 0 {
		t.Errorf("an unknown level: %#v", err)
	}
}

func TestProblemsHaveTypeAndStatus(t *testing.T) {
	d := open(t, false, "")
	d.apply(t, farmYAML, 0)
	for path, want := range map[string]int{
		"/v1/farms/shop/sites/nope":     404,
		"/v1/nothing":                   404,
		"/v1/farms/shop/sites?limit=-1": 422,
	} {
		res := d.send(t, "GET", path, "")
		var p api.Problem
		if err := json.Unmarshal(res.text, &p); err != nil {
			t.Fatalf("%s: %v in %s", path, err, res.text)
		}
		if res.status != want || p.Status != want || res.kind != "application/problem+json" ||
			!strings.HasPrefix(p.Type, "https://") || p.Title == "" || p.Detail == "" {
			t.Errorf("%s: %d %s %+v", path, res.status, res.kind, p)
		}
	}
}

// A reply is what came back, read to its end.
type reply struct {
	status int
	kind   string
	text   []byte
}

// send speaks HTTP to the socket.
func (d door) send(t *testing.T, method, path, body string) reply {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.config.Socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header.Get("Content-Type"), text}
}

func (d door) get(t *testing.T, path string, into any) {
	t.Helper()
	res := d.send(t, "GET", path, "")
	if res.status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, res.status, res.text)
	}
	if err := json.Unmarshal(res.text, into); err != nil {
		t.Fatal(err)
	}
}

func TestNoAnswerHoldsASecret(t *testing.T) {
	d := open(t, false, "")
	d.apply(t, farmYAML, 0)
	if err := d.SetSecret(t.Context(), "shop", "deploy", farm.NewSecret([]byte(hidden))); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	for _, r := range api.Routes() {
		if r.Method == "GET" && r.ID != "follow-events" {
			name := map[string]string{"get-target": "www/files@here", "get-node": "here"}[r.ID]
			seen.Write(d.send(t, "GET", r.URL("shop", cmp.Or(name, "www"))+"?site=www", "").text)
		}
	}
	if !strings.Contains(seen.String(), `"deploy"`) {
		t.Error("the secret's name is in no list")
	}
	for _, body := range []string{
		fmt.Sprintf(`{"value": {"oops": %q}}`, hidden),
		fmt.Sprintf(`{"value": %q}`, hidden),
		fmt.Sprintf(`{"valeu": %q}`, hidden),
		fmt.Sprintf(`{"value": "%s`, hidden),
	} {
		res := d.send(t, "PUT", "/v1/farms/shop/secrets/x", body)
		if res.status < 400 {
			t.Errorf("%s was taken", body)
		}
		seen.Write(res.text)
	}
	res := d.send(t, "POST", "/v1/farms/shop/sites/www/import", fmt.Sprintf(`{"chain": "x", "key": %q}`, hidden))
	seen.Write(res.text)
	if res.status < 400 {
		t.Error("a key that is none was imported")
	}
	if strings.Contains(seen.String(), hidden) {
		t.Errorf("the secret is in an answer: %s", seen.String())
	}
}

func TestLargeBodiesAreRefused(t *testing.T) {
	d := open(t, false, "")
	res := d.send(t, "PUT", "/v1/farms/shop/secrets/x", `{"value": "`+strings.Repeat("A", 2<<20)+`"}`)
	if res.status != http.StatusRequestEntityTooLarge {
		t.Error(res.status)
	}
}

func TestEventsAreFollowed(t *testing.T) {
	d := open(t, false, "")
	d.apply(t, farmYAML, 0)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	heard := make(chan farm.Event, 10)
	ended := make(chan error, 1)
	enough := errors.New("enough")
	go func() {
		ended <- d.Follow(ctx, "shop", store.EventQuery{}, func(e farm.Event) error {
			heard <- e
			if e.Kind == "farm.freeze" {
				return enough
			}
			return nil
		})
	}()
	if e := <-heard; e.Kind != "farm.applied" {
		t.Errorf("first %+v", e)
	}
	if err := d.Freeze(ctx, "shop", true); err != nil {
		t.Fatal(err)
	}
	if e := <-heard; e.Kind != "farm.freeze" || e.Actor != "alice" {
		t.Errorf("then %+v", e)
	}
	if err := <-ended; !errors.Is(err, enough) {
		t.Error(err)
	}
}

func TestTheSocketIsForItsUserOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("only on systems other than Windows, which has no such bits")
	}
	d := open(t, false, "")
	info, err := os.Stat(d.config.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(d.state, ".s*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := api.Listen(http.NotFoundHandler(), api.Doors{Socket: d.config.Socket}); err == nil {
		t.Error("a second controller took the socket")
	}
}

func TestTokens(t *testing.T) {
	const all, some = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	d := open(t, true, "# who\nops "+all+"\nmonitor "+some+" view\n")
	ctx := t.Context()
	with := func(token string) *client.Client {
		c := d.config
		c.Token = farm.NewSecret([]byte(token))
		return d.client(t, c)
	}
	if _, err := with(all).Apply(ctx, "shop", []byte(farmYAML), "farm.yaml", 0); err != nil {
		t.Fatal(err)
	}
	if f, err := with(some).FarmFile(ctx, "shop"); err != nil || f.By != "ops" {
		t.Errorf("by %q, %v", f.By, err)
	}
	problem := func(err error) string {
		p, ok := errors.AsType[*api.Problem](err)
		if !ok {
			return fmt.Sprint(err)
		}
		return p.Kind()
	}
	if got := problem(with(some).Freeze(ctx, "shop", true)); got != api.Forbidden {
		t.Errorf("monitor froze the farm: %s", got)
	}
	for _, token := range []string{"", "x", all + "0", all[:31]} {
		if _, err := with(token).Farms(ctx); problem(err) != api.Unauthorized {
			t.Errorf("token %q: %v", token, err)
		}
	}
}

func TestPlainTCPIsLoopbackWithTokens(t *testing.T) {
	gate, err := access.NewGate(access.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []api.Doors{{TCP: "127.0.0.1:0"}, {TCP: "0.0.0.0:0", Gate: gate}} {
		if _, err := api.Listen(http.NotFoundHandler(), d); err == nil {
			t.Errorf("opened %+v", d)
		}
	}
	if _, err := client.New(client.Config{URL: "http://192.0.2.1:8403"}); err == nil {
		t.Error("a client would send its token in the clear")
	}
}

func TestNobodyIsRefused(t *testing.T) {
	h := api.New(api.Config{Controller: nil, Version: "test"})
	w := &answer{header: http.Header{}}
	h.ServeHTTP(w, mustRequest(t, "/v1/farms"))
	if w.status != http.StatusUnauthorized {
		t.Errorf("status %d", w.status)
	}
}

type answer struct {
	header http.Header
	status int
	bytes.Buffer
}

func (a *answer) Header() http.Header    { return a.header }
func (a *answer) WriteHeader(status int) { a.status = status }

func mustRequest(t *testing.T, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://x"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
