package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
)

// A hostile world is everything that a controller calls: machines, a CA, the API of a
// name server, and receivers, which take what they get or repeat it in a refusal.
type hostile struct {
	machines  *lab.Machines
	ca        *issuetest.CA
	given     map[string][]byte // secrets that farm.yaml names
	known     map[string][]byte // the same, by what they are
	called    map[string]chan struct{}
	collector string // URL, for traces
	front     *httptest.Server
	secure    *httptest.Server
	mail      string // host:port
	sample    func(when string)

	mu   sync.Mutex
	once map[string]bool
	told map[string][]byte
}

// newHostile starts it. sample is called while one of the ends is called.
func newHostile(t *testing.T, dir string, sample func(when string)) *hostile {
	t.Helper()
	h := &hostile{sample: sample, given: map[string][]byte{}, known: map[string][]byte{}, called: map[string]chan struct{}{}, once: map[string]bool{}, told: map[string][]byte{}}
	for _, who := range []string{"dns", "refused dns", "mail", "slack", "webhook", "shoutrrr", "ping", "stage", "traces"} {
		h.called[who] = make(chan struct{})
	}
	for _, name := range []string{"eab", "dns-key", "refused-dns-key", "hook-hmac", "sign-hmac", "smtp", "pfx"} {
		h.given[name] = []byte("canary0" + strings.ReplaceAll(name, "-", "0") + "0" + rand.Text())
	}
	h.given["eab"] = []byte(base64.RawURLEncoding.EncodeToString([]byte("canary of the account, " + rand.Text())))
	var err error
	h.machines, err = lab.StartMachines(lab.Layout{Dir: dir + "/lab", Nodes: 2})
	must(t, err)
	t.Cleanup(func() { must(t, h.machines.Close()) })
	h.given["login"], err = os.ReadFile(h.machines.KeyFile)
	must(t, err)
	must(t, h.machines.DNS.SetRecords("test", dns.TypeSOA, "test. 60 IN SOA ns.test. hostmaster.test. 1 60 60 60 60"))
	h.ca, err = issuetest.Start(issuetest.Options{DNS: h.machines.DNS.Addr(), EAB: map[string]string{"kid": string(h.given["eab"])}})
	must(t, err)
	t.Cleanup(func() { must(t, h.ca.Close()) })
	h.front, h.secure = httptest.NewServer(h.mux()), httptest.NewTLSServer(http.HandlerFunc(h.target))
	t.Cleanup(h.front.Close)
	t.Cleanup(h.secure.Close)
	h.collector = h.front.URL
	host := h.front.Listener.Addr().String()
	for name, url := range map[string]string{
		"slack": "http://" + host + "/slack/", "ping": "http://" + host + "/ping/", "shout": "ntfy://" + host + "/canary0topic0?scheme=http&tags=",
	} {
		word := "canary0" + name + "0" + rand.Text()
		h.given[name], h.known["the secret "+name] = []byte(url+word), []byte(word)
	}
	for name, value := range h.given {
		if h.known["the secret "+name] == nil {
			h.known["the secret "+name] = value
		}
	}
	h.postbox(t)
	return h
}

// hears notes a call, and looks at the controller's processes meanwhile.
func (h *hostile) hears(who string, text []byte) {
	h.mu.Lock()
	first := !h.once[who]
	h.once[who] = true
	h.told[who] = append(append(h.told[who], text...), '\n')
	h.mu.Unlock()
	if first {
		h.sample("while " + who)
		close(h.called[who])
	}
}

// messages is what the controller wrote to people and to a collector.
func (h *hostile) messages() map[string][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string][]byte{}
	for _, who := range []string{"webhook", "slack", "shoutrrr", "traces"} {
		all["message "+who] = h.told[who]
	}
	return all
}

// mux is what is called over HTTP.
func (h *hostile) mux() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/traces", h.takes("traces", http.StatusOK))
	mux.Handle("/webhook", h.takes("webhook", http.StatusOK))
	mux.Handle("/slack/", h.takes("slack", http.StatusForbidden))
	mux.Handle("/ping/", h.takes("ping", http.StatusNotFound))
	mux.Handle("/refused/", h.takes("refused dns", http.StatusForbidden))
	mux.Handle("/dns/", http.StripPrefix("/dns", http.HandlerFunc(h.nameServer)))
	mux.Handle("/", h.takes("shoutrrr", http.StatusForbidden))
	return mux
}

// takes answers with a status and, where it refuses, with all that it was told.
func (h *hostile) takes(who string, status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			if z, err := gzip.NewReader(r.Body); err == nil {
				body = z
			}
		}
		text, _ := io.ReadAll(body) // what came is what counts
		h.hears(who, text)
		w.WriteHeader(status)
		if status != http.StatusOK {
			fmt.Fprintf(w, "you came to %s with %v and %s", r.URL, r.Header, text)
		}
	})
}

// nameServer is as much of the API of PowerDNS as proving a name takes.
func (h *hostile) nameServer(w http.ResponseWriter, r *http.Request) {
	h.hears("dns", nil)
	switch {
	case r.Header.Get("X-API-Key") != string(h.given["dns-key"]):
		http.Error(w, "a wrong key", http.StatusUnauthorized)
	case r.URL.Path == "/api":
		fmt.Fprint(w, `[{"url": "/api/v1", "version": 1}]`)
	case r.Method == http.MethodPatch:
		var sets struct {
			RRSets []struct {
				Name       string
				ChangeType string
				Records    []struct{ Content string }
			}
		}
		err := json.NewDecoder(r.Body).Decode(&sets)
		for _, s := range sets.RRSets {
			var lines []string
			for _, rec := range s.Records {
				lines = append(lines, s.Name+" 0 IN TXT "+rec.Content)
			}
			err = errors.Join(err, h.machines.DNS.SetRecords(s.Name, dns.TypeTXT, lines...))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		h.zone(w)
	}
}

// zone answers with the whole zone.
func (h *hostile) zone(w http.ResponseWriter) {
	type record map[string]any
	var sets []record
	for _, name := range siteNames {
		m := new(dns.Msg).SetQuestion("_acme-challenge."+name+".", dns.TypeTXT)
		reply, _, err := (&dns.Client{Net: "tcp"}).Exchange(m, h.machines.DNS.Addr())
		if err != nil || len(reply.Answer) == 0 {
			continue
		}
		var values []record
		for _, rr := range reply.Answer {
			if txt, ok := rr.(*dns.TXT); ok {
				values = append(values, record{"content": fmt.Sprintf("%q", strings.Join(txt.Txt, ""))})
			}
		}
		sets = append(sets, record{"name": "_acme-challenge." + name + ".", "type": "TXT", "ttl": 0, "records": values})
	}
	_ = json.NewEncoder(w).Encode(record{"id": "test.", "name": "test.", "kind": "Native", "rrsets": sets}) // who asks asks again
}

// target is one that can be looked at, and refuses a certificate with its key.
func (h *hostile) target(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	if bytes.Contains(text, []byte(`"inspect"`)) {
		fmt.Fprint(w, `{"ok": true, "leaves": []}`)
		return
	}
	if bytes.Contains(text, []byte(`"stage"`)) {
		h.hears("stage", text)
	}
	_, key, _ := bytes.Cut(text, []byte(`"key":`)) // an error quotes a few hundred bytes: the worst comes first
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": false, "error": fmt.Sprintf("%s %s %v", h.given["hook-hmac"], key, r.Header)})
}

// Parts of an SMTP server that repeats the password.
type (
	postOffice struct{ h *hostile }
	postClerk  struct{ postOffice }
	silentLog  struct{}
)

func (silentLog) Printf(string, ...any) {}
func (silentLog) Println(...any)        {}

func (p postOffice) NewSession(*smtp.Conn) (smtp.Session, error) { return postClerk{p}, nil }

func (postClerk) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c postClerk) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, password string) error {
		c.h.hears("mail", nil)
		return fmt.Errorf("wrong password %s", password)
	}), nil
}

func (postClerk) Mail(string, *smtp.MailOptions) error { return nil }
func (postClerk) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (postClerk) Data(io.Reader) error                 { return nil }
func (postClerk) Reset()                               {}
func (postClerk) Logout() error                        { return nil }

// postbox starts it, with the certificate of the other server.
func (h *hostile) postbox(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	h.mail = l.Addr().String()
	s := smtp.NewServer(postOffice{h})
	s.TLSConfig, s.ReadTimeout, s.ErrorLog = h.secure.TLS.Clone(), 10*time.Second, silentLog{}
	s.TLSConfig.NextProtos = nil
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l) // always an error: Close was called
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-ended
	})
}

// siteKey is the key that a node serves with.
func (h *hostile) siteKey(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(h.machines.Nodes[0].Path(lab.DefaultPEM))
	must(t, err)
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return pem.EncodeToMemory(block)
		}
	}
	t.Fatal("the node has no key")
	return nil
}

// farmYAML is the farm, with a site whose names cannot be proven; with trouble there is a
// target that refuses, too.
func (h *hostile) farmYAML(trouble bool) string {
	var b strings.Builder
	indent := func(by, text string) string { return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by) }
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.secure.Certificate().Raw}))
	fmt.Fprintf(&b, `farm: %s
resolvers: {".": [%q]}
issuers:
  pebble:
    acme: %s
    profile: default
    eab: {key_id: kid, hmac: {secret: eab}}
    roots: |
%s
dns:
  pdns: {options: {PDNS_API_URL: "%s/dns"}, secrets: {PDNS_API_KEY: {secret: dns-key}}, ask: resolvers}
  refused: {provider: pdns, options: {PDNS_API_URL: "%[5]s/refused"}, secrets: {PDNS_API_KEY: {secret: refused-dns-key}}, ask: resolvers}
notifications:
  wait: 0s
  receivers:
    webhook: {options: {url: "%[5]s/webhook", allow_private: [127.0.0.1]}, secrets: {hmac: {secret: sign-hmac}}}
    slack: {options: {allow_private: [127.0.0.1]}, secrets: {url: {secret: slack}}}
    shoutrrr: {options: {allow_private: [127.0.0.1]}, secrets: {url: {secret: shout}}}
    mail:
      options:
        {server: "%[6]s", from: a@shop.test, to: [b@shop.test], user: certfarm, allow_private: [127.0.0.1], ca: %[7]q}
      secrets: {password: {secret: smtp}}
  routes: [{to: [webhook, slack, shoutrrr, mail], severity: info}]
  ping: {url: {secret: ping}, every: 30s, allow_private: [127.0.0.1/32]}
nodes:
`, openWord, h.machines.DNS.Addr(), h.ca.Directory, indent("      ", h.ca.ListenRoots+h.ca.Roots), h.front.URL, h.mail, authority)
	for _, n := range h.machines.Nodes {
		_, port, _ := net.SplitHostPort(n.SSHAddr())
		fmt.Fprintf(&b, "  %s: {address: 127.0.0.1, ssh: {port: %s, user: %s, key: {secret: login}, host_key: [%q]}}\n", n.Backend().Name, port, lab.LoginUser, n.HostKey())
	}
	deadline := "60s"
	if trouble {
		deadline = "1s"
	}
	fmt.Fprintf(&b, "sites:\n  %[1]s:\n    names: [%[2]s]\n    validation: {dns: pdns}\n    policy: {canary: 1, soak: 0s, deadline: %[3]s, healthy_deadline: %[3]s}\n    targets:\n", siteName, strings.Join(siteNames, ", "), deadline)
	for _, n := range h.machines.Nodes {
		_, port, _ := net.SplitHostPort(n.HTTPSAddr())
		fmt.Fprintf(&b, "      - {kind: nginx, on: %s, options: {pem: %s, store: %s, test: [webd, -t], reload: [webd, reload], start: [webd, start]}, endpoints: [{port: %s}]}\n",
			n.Backend().Name, lab.DefaultPEM, lab.StoreFolder, port)
		if n == h.machines.Nodes[1] {
			fmt.Fprintf(&b, "      - {kind: pfx, on: %s, options: {path: /etc/tls/site.pfx, store: %s}, secrets: {password: {secret: pfx}}, endpoints: [{port: %s}]}\n",
				n.Backend().Name, lab.StoreFolder, port)
		}
	}
	if trouble {
		fmt.Fprintf(&b, "      - {kind: webhook, options: {url: %q, deliver: true, allow_private: [127.0.0.1], ca: %q}, secrets: {hmac: {secret: hook-hmac}}, endpoints: [{address: %q}]}\n",
			h.secure.URL, authority, h.machines.Balancer.HTTPSAddr())
	}
	b.WriteString("  refused:\n    names: [refused.test]\n    validation: {dns: refused}\n    targets: [{kind: pfx, on: web2, options: {path: /etc/tls/refused.pfx}, secrets: {password: {secret: pfx}}}]\n")
	return b.String()
}

// freeAddress was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}
