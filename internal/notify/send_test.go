package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	netmail "net/mail"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/notify/shout"
	"github.com/certfarm/certfarm/internal/outbound"
)

// canary is in every secret: no error may hold it.
const canary = "CANARY5f2e81c09b77aa13d4"

// asHelper has this test's own program be the helper of kind shoutrrr.
const asHelper = "CERTFARM_TEST_SHOUT"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asHelper {
		if err := shout.Main(os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		syscall.Exit(0) // os.Exit would wait a second for more races
	}
	os.Exit(m.Run())
}

// A double is a service that keeps what it is sent.
type double struct {
	*httptest.Server
	mu      sync.Mutex
	bodies  [][]byte
	headers []http.Header
	paths   []string
	status  int
}

func newDouble(t *testing.T) *double {
	d := &double{status: http.StatusOK}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.bodies, d.headers, d.paths = append(d.bodies, body), append(d.headers, r.Header), append(d.paths, r.URL.Path)
		w.WriteHeader(d.status)
		if d.status == http.StatusOK {
			fmt.Fprint(w, "{}")
		} else { // servers quote what they were sent
			fmt.Fprintf(w, "no such hook %s: %s", r.URL, body)
		}
	}))
	t.Cleanup(d.Close)
	return d
}

// last is the last body, as JSON.
func (d *double) last(t *testing.T) (v map[string]any) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.bodies) == 0 {
		t.Fatal("nothing came")
	}
	if err := json.Unmarshal(d.bodies[len(d.bodies)-1], &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// at follows names and numbers into JSON.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// open opens a kind as farm.yaml would.
func open(t *testing.T, kind string, options map[string]any, secrets map[string]string) Sender {
	t.Helper()
	s, err := opened(t, kind, options, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opened(t *testing.T, kind string, options map[string]any, secrets map[string]string) (Sender, error) {
	t.Helper()
	k, ok := KindOf(kind)
	if !ok {
		t.Fatalf("there is no kind %s", kind)
	}
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	setup := Setup{Secrets: map[string]farm.Secret{}, Helper: []string{os.Args[0], asHelper}}
	var names []string
	for name, value := range secrets {
		setup.Secrets[name] = farm.NewSecret([]byte(value + "\n")) // files end so
		names = append(names, name)
	}
	canonical, err := k.Check(text, names)
	if err != nil {
		return nil, err
	}
	return k.Open(canonical, setup)
}

func private() map[string]any { return map[string]any{"allow_private": []string{"127.0.0.1"}} }

func example(state State) Message {
	m := Message{
		ID: "reach-ev1-team-1", Notice: "reach-ev1", Farm: "shop", Receiver: "team", State: state, Severity: farm.ForPage, Cause: "reach", At: noon, Began: noon,
		Parts: []Affected{{Object: "www/nginx@web-1", Severity: farm.ForPage, Site: "www", Node: "web-1", Text: "web-1 <cannot> be reached & serves nothing", Since: noon}},
	}
	m.compose(map[string]Facts{"www": {Site: "www", Targets: 2, InStep: 1, Until: noon.AddDate(0, 0, 9)}}, "https://certfarm.example.com")
	return m
}

func TestSlack(t *testing.T) {
	d := newDouble(t)
	s := open(t, "slack", private(), map[string]string{"url": d.URL + "/services/T0/" + canary})
	if err := s.Send(t.Context(), example(Began)); err != nil {
		t.Fatal(err)
	}
	got := d.last(t)
	if at(got, "text") != "[PAGE] shop: 1 target cannot be reached on web-1 (www)" {
		t.Errorf("text: %v", at(got, "text"))
	}
	body := fmt.Sprint(at(got, "blocks", 0, "text", "text"))
	if at(got, "blocks", 0, "type") != "section" || at(got, "blocks", 0, "text", "type") != "mrkdwn" || !strings.Contains(body, "web-1 &lt;cannot&gt; be reached &amp; serves") {
		t.Errorf("blocks: %v", at(got, "blocks"))
	}
	if d.paths[0] != "/services/T0/"+canary {
		t.Errorf("it went to %s", d.paths[0])
	}
}

func TestTeams(t *testing.T) {
	d := newDouble(t)
	d.status = http.StatusAccepted // as workflows answer
	s := open(t, "teams", private(), map[string]string{"url": d.URL + "/workflows/x?sig=" + canary})
	if err := s.Send(t.Context(), example(Began)); err != nil {
		t.Fatal(err)
	}
	got := d.last(t)
	card := at(got, "attachments", 0, "content")
	if at(got, "type") != "message" || at(got, "attachments", 0, "contentType") != "application/vnd.microsoft.card.adaptive" ||
		at(card, "type") != "AdaptiveCard" || at(card, "body", 0, "color") != "Attention" || at(card, "actions", 0, "type") != "Action.OpenUrl" ||
		!strings.Contains(fmt.Sprint(at(card, "body")), "1 of 2 targets serve what they should") {
		t.Errorf("got %v", got)
	}
}

func TestPagerDuty(t *testing.T) {
	d := newDouble(t)
	o := private()
	o["url"] = d.URL + "/v2/enqueue"
	s := open(t, "pagerduty", o, map[string]string{"routing_key": canary})
	for _, state := range []State{Began, Grew, Over} {
		if err := s.Send(t.Context(), example(state)); err != nil {
			t.Fatal(err)
		}
		got := d.last(t)
		want := map[State]string{Began: "trigger", Grew: "trigger", Over: "resolve"}[state]
		if at(got, "event_action") != want || at(got, "dedup_key") != "certfarm shop reach-ev1" || at(got, "routing_key") != canary {
			t.Errorf("%s: %v", state, got)
		}
		if at(got, "payload", "severity") != "critical" || at(got, "payload", "source") != "shop" || at(got, "payload", "summary") == "" {
			t.Errorf("%s: %v", state, at(got, "payload"))
		}
	}
	if err := s.Send(t.Context(), Trial("shop", "oncall", "ada", "t1", "", noon)); err != nil {
		t.Fatal(err)
	}
	if at(d.last(t), "event_action") != "resolve" || len(d.bodies) != 5 {
		t.Error("a trial leaves an alert behind")
	}
}

func TestWebhookIsSigned(t *testing.T) {
	d := newDouble(t)
	o := private()
	o["url"] = d.URL + "/hook"
	key := strings.Repeat(canary, 2)
	if err := open(t, "webhook", o, map[string]string{"hmac": key}).Send(t.Context(), example(Began)); err != nil {
		t.Fatal(err)
	}
	h := d.headers[0]
	if want := outbound.Sign(farm.NewSecret([]byte(key)), h.Get("Certfarm-Time"), d.bodies[0]); h.Get("Certfarm-Signature") != want {
		t.Errorf("signed %q, want %q", h.Get("Certfarm-Signature"), want)
	}
	var m Message
	if err := json.Unmarshal(d.bodies[0], &m); err != nil || m.ID != h.Get("Idempotency-Key") || m.Parts[0].Node != "web-1" || m.Sites[0].InStep != 1 {
		t.Errorf("%v, %+v", err, m)
	}
	if _, err := opened(t, "webhook", o, map[string]string{"hmac": "short"}); err == nil {
		t.Error("a short key signs")
	}
}

// Another service goes through a process of its own, which the guard holds, too.
func TestShoutrrr(t *testing.T) {
	d := newDouble(t)
	host := strings.TrimPrefix(d.URL, "http://")
	o := private()
	secret := map[string]string{"url": "ntfy://:" + canary + "@" + host + "/farm?scheme=http"}
	if err := open(t, "shoutrrr", o, secret).Send(t.Context(), example(Began)); err != nil {
		t.Fatal(err)
	}
	if d.paths[0] != "/farm" || !bytes.Contains(d.bodies[0], []byte("cannot be reached on web-1")) {
		t.Errorf("%s: %s", d.paths[0], d.bodies[0])
	}
	if _, err := opened(t, "shoutrrr", o, map[string]string{"url": "smtp://user:" + canary + "@" + host}); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("a service that cannot be guarded: %v", err)
	}
}

// Nothing is dialled that is not public, unless it was named; and whatever fails, no
// error holds a secret.
func TestNowhereElseAndNoSecret(t *testing.T) {
	taken := make(chan struct{}, 100)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			taken <- struct{}{}
			c.Close()
		}
	}()
	closed, bad := l.Addr().String(), newDouble(t)
	bad.status = http.StatusNotFound
	host := strings.TrimPrefix(bad.URL, "http://")
	with := func(more map[string]any, allow bool) map[string]any {
		o := map[string]any{}
		if allow {
			o = private()
		}
		maps.Copy(o, more)
		return o
	}
	for kind, of := range map[string]func(host string) (map[string]any, map[string]string){
		"slack": func(h string) (map[string]any, map[string]string) {
			return nil, map[string]string{"url": "http://" + h + "/services/" + canary}
		},
		"teams": func(h string) (map[string]any, map[string]string) {
			return nil, map[string]string{"url": "http://" + h + "/workflows?sig=" + canary}
		},
		"pagerduty": func(h string) (map[string]any, map[string]string) {
			return map[string]any{"url": "http://" + h + "/"}, map[string]string{"routing_key": canary}
		},
		"webhook": func(h string) (map[string]any, map[string]string) {
			return map[string]any{"url": "http://" + h + "/"}, map[string]string{"hmac": canary + canary}
		},
		"mail": func(h string) (map[string]any, map[string]string) {
			return map[string]any{"server": h, "from": "a@example.com", "to": []string{"b@example.com"}, "user": "u"}, map[string]string{"password": canary}
		},
		"shoutrrr": func(h string) (map[string]any, map[string]string) {
			return nil, map[string]string{"url": "gotify://" + h + "/A" + canary[:14] + "?disabletls=yes"}
		},
	} {
		o, secrets := of(closed)
		err := open(t, kind, with(o, false), secrets).Send(t.Context(), example(Began))
		if err == nil || !strings.Contains(err.Error(), "allow_private") {
			t.Errorf("%s without allow_private: %v", kind, err)
		}
		if kind == "mail" {
			continue // see TestMail
		}
		o, secrets = of(host)
		failed := open(t, kind, with(o, true), secrets).Send(t.Context(), example(Began))
		if failed == nil {
			t.Errorf("%s: a refusal is a success", kind)
		}
		if text := fmt.Sprint(err, failed); strings.Contains(text, canary[:12]) {
			t.Errorf("%s tells its secret: %s", kind, text)
		}
	}
	if len(taken) > 0 {
		t.Errorf("%d connections were made that nobody allowed", len(taken))
	}
	if err := Ping(t.Context(), farm.NewSecret([]byte("http://"+closed+"/"+canary)), nil, ""); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("ping: %v", err)
	}
}

// A postbox is a real SMTP server that keeps what it gets.
type postbox struct {
	mu      sync.Mutex
	mails   []string
	users   []string
	address string
	roots   string
}

func (p *postbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &posting{box: p}, nil }

type posting struct{ box *postbox }

func (s *posting) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *posting) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		s.box.mu.Lock()
		defer s.box.mu.Unlock()
		s.box.users = append(s.box.users, user)
		if password != canary {
			return fmt.Errorf("wrong password %s", password) // it tells too much, as servers do
		}
		return nil
	}), nil
}
func (s *posting) Mail(string, *smtp.MailOptions) error { return nil }
func (s *posting) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s *posting) Reset()                               {}
func (s *posting) Logout() error                        { return nil }
func (s *posting) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.box.mails = append(s.box.mails, string(text))
	return err
}

// newPostbox starts one; with full it speaks TLS from the first byte.
func newPostbox(t *testing.T, full bool) *postbox {
	t.Helper()
	pair := httptest.NewUnstartedServer(nil)
	pair.StartTLS() // for its certificate, which is for 127.0.0.1
	t.Cleanup(pair.Close)
	b := &postbox{roots: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate().Raw}))}
	config := &tls.Config{Certificates: pair.TLS.Certificates}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	server := smtp.NewServer(b)
	server.TLSConfig, server.ReadTimeout, server.ErrorLog = config, 10*time.Second, quietLog{}
	if full {
		l = tls.NewListener(l, config)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return b
}

type quietLog struct{}

func (quietLog) Printf(string, ...any) {}
func (quietLog) Println(...any)        {}

func TestMail(t *testing.T) {
	for _, way := range []string{startTLS, fullTLS} {
		b := newPostbox(t, way == fullTLS)
		o := private()
		o["server"], o["ca"], o["tls"], o["user"] = b.address, b.roots, way, "certfarm"
		o["from"], o["to"] = "Certfarm <certfarm@example.com>", []string{"ada@example.com", "bob@example.com"}
		if err := open(t, "mail", o, map[string]string{"password": canary}).Send(t.Context(), example(Began)); err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		if len(b.mails) != 1 || !slices.Equal(b.users, []string{"certfarm"}) {
			t.Fatalf("%s: %d mails by %v", way, len(b.mails), b.users)
		}
		m, err := netmail.ReadMessage(strings.NewReader(b.mails[0]))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(m.Body)
		for header, want := range map[string]string{
			"Subject": "[PAGE] shop: 1 target cannot be reached on web-1 (www)", "Message-Id": "<reach-ev1-team-1@example.com>", "References": "<reach-ev1@example.com>",
			"Auto-Submitted": "auto-generated", "To": "<ada@example.com>, <bob@example.com>",
		} {
			if got := m.Header.Get(header); got != want {
				t.Errorf("%s is %q, not %q", header, got, want)
			}
		}
		if !strings.Contains(string(body), "1 of 2 targets serve what they should") {
			t.Errorf("the mail says %s", body)
		}
		wrong := open(t, "mail", o, map[string]string{"password": canary + "x"}).Send(t.Context(), example(Began))
		if wrong == nil || strings.Contains(wrong.Error(), canary) {
			t.Errorf("a wrong password: %v", wrong)
		}
	}
}

// A server that does not offer TLS gets no mail where TLS was asked for.
func TestMailIsNotSentInTheClear(t *testing.T) {
	b := newPostbox(t, false)
	o := private()
	o["server"], o["from"], o["to"] = b.address, "certfarm@example.com", []string{"ada@example.com"}
	if err := open(t, "mail", o, nil).Send(t.Context(), example(Began)); err == nil || len(b.mails) > 0 {
		t.Errorf("a certificate of nobody we know: %v, %d mails", err, len(b.mails))
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		kind, options, secret, field string
	}{
		{"slack", `{}`, "", ""}, {"webhook", `{}`, "hmac", "url"}, {"webhook", `{"url": "https://a:b@example.com"}`, "hmac", "url"},
		{"slack", `{"allow_private": ["0.0.0.0/0"]}`, "url", "allow_private[0]"}, {"slack", `{"ca": "x"}`, "url", "ca"},
		{"mail", `{"server": "mail"}`, "", "server"}, {"mail", `{"server": "mail:25", "tls": "none", "user": "u"}`, "", "tls"},
		{"mail", `{"server": "mail:25", "tls": "maybe"}`, "", "tls"}, {"mail", `{"server": "mail:25", "from": "a@b.c"}`, "", "to"},
		{"mail", `{"server": "mail:25", "from": "a", "to": ["a@b.c"]}`, "", "from"}, {"mail", `{"server": "mail:25", "from": "a@b.c", "to": ["a@b.c", "x"]}`, "", "to[1]"},
	} {
		k, _ := KindOf(c.kind)
		_, err := k.Check([]byte(c.options), []string{c.secret})
		wrong, ok := errors.AsType[*FieldError](err)
		if !ok || wrong.Field != c.field {
			t.Errorf("%s %s: %v", c.kind, c.options, err)
		}
	}
	k, _ := KindOf("slack")
	if _, err := k.Check([]byte(`{"chanel": "x"}`), []string{"url"}); err == nil {
		t.Error("an unknown option is taken")
	}
}

func TestASenderIsNotWaitedForForEver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := newDouble(t)
	if err := open(t, "slack", private(), map[string]string{"url": d.URL}).Send(ctx, example(Began)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
