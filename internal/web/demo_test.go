package web_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/web"
)

// The demo is a farm in which everything that a page can show is so at one time. It is
// written into a store, and no controller works on it: every screen stands still.

// A demo is its dashboard.
type demo struct {
	*testing.T
	URL, Token string
	Farm       string
	Controller *controller.Controller
	desk       access.Desk
	at         time.Time
	versions   map[string][]farm.Version // by site, newest first
}

// demoFarm is its farm.yaml.
const demoFarm = `farm: harbour
resolvers: {".": [%q]}

issuers:
  letsencrypt:
    acme: https://acme-v02.api.letsencrypt.org/directory
    contact: mailto:ops@harbour.example
    profile: tlsserver

notifications:
  receivers:
    on-call: {kind: pagerduty, secrets: {routing_key: {secret: pagerduty}}}
    ops: {kind: slack, secrets: {url: {secret: slack}}}
    shop-team: {kind: mail, options: {server: "mail.harbour.example:587", from: certfarm@harbour.example, to: [shop@harbour.example]}}
    tickets: {kind: webhook, options: {url: "https://desk.harbour.example/hooks/certfarm"}, secrets: {hmac: {secret: tickets}}}
  routes:
    - {to: [on-call], severity: page}
    - {to: [ops], severity: ticket, quiet: "22:00-06:00 Europe/Berlin"}
    - {to: [shop-team], severity: info, tags: [shop], events: [rollout, order.failed]}
    - {to: [tickets], severity: ticket}
  ping: {url: {secret: ping}, every: 2m}

nodes:
  lb1: {address: 10.20.0.4, labels: {pool: edge, zone: a}, ssh: &ssh {user: deploy, key: {secret: deploy-key}, host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINa2evsNirW6Bq7fOEdFxfawfAy7gywd+MYt964Fn8sy}}
  lb2: {address: 10.20.0.5, labels: {pool: edge, zone: b}, ssh: *ssh}
  web1: {address: 10.20.1.11, labels: {pool: web, zone: a}, ssh: *ssh}
  web2: {address: 10.20.1.12, labels: {pool: web, zone: b}, ssh: *ssh}
  web3: {address: 10.20.1.13, labels: {pool: web, zone: a}, ssh: *ssh}
  web4: {address: 10.20.1.14, labels: {pool: web, zone: b}, ssh: *ssh}
  app1: {address: 10.20.2.21, labels: {pool: app, zone: a}, agent: true}
  app2: {address: 10.20.2.22, labels: {pool: app, zone: b}, agent: true}
  mail1: {address: 10.20.3.31, labels: {pool: mail}, ssh: *ssh}

sites:
  shop:
    names: [shop.harbour.example, www.harbour.example]
    tags: [shop]
    targets: [{kind: nginx, on: {pool: web}, options: {pem: /etc/nginx/tls/shop.pem}}]
    policy: &careful {canary: 1, soak: 5m, max_parallel: 2, failure_budget: 0}
  checkout:
    names: [checkout.harbour.example]
    tags: [shop]
    targets: [{kind: nginx, on: {pool: web}, options: {pem: /etc/nginx/tls/checkout.pem}}]
    policy:
      <<: *careful
      waves: [{name: the rest, match: {pool: web}, approve: true}]
  login:
    names: [login.harbour.example]
    targets: [{kind: nginx, on: {pool: web}, options: {pem: /etc/nginx/tls/login.pem}}]
    policy: *careful
  docs:
    names: [docs.harbour.example]
    targets: [{kind: nginx, on: {pool: web}, options: {pem: /etc/nginx/tls/docs.pem}}]
    policy: *careful
  status:
    names: [status.harbour.example]
    strategy: edge
    targets: [{kind: haproxy, on: {pool: edge}, options: {pem: /etc/haproxy/tls/status.pem}}]
    policy: *careful
  ledger:
    names: [ledger.harbour.example]
    strategy: per-node
    targets: [{kind: nginx, on: {pool: app}, options: {pem: /etc/nginx/tls/ledger.pem}}]
    policy: {canary: 1}
  mail:
    names: [mail.harbour.example, imap.harbour.example]
    targets: [{kind: files, on: mail1, options: {pem: /etc/postfix/tls/mail.pem, reload: [systemctl, reload, postfix]}, endpoints: [{port: 465}, {port: 993}]}]
    policy: {drift: report}
  careers:
    names: [careers.harbour.example]
    targets: [{kind: nginx, on: {pool: web}, options: {pem: /etc/nginx/tls/careers.pem}}]
    policy: *careful
`

// demoOf writes the demo, and opens its dashboard.
func demoOf(t *testing.T) *demo {
	t.Helper()
	ctx := t.Context()
	kept, err := store.Open(ctx, filepath.Join(t.TempDir(), "certfarm.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kept.Close() })
	c, lines := controller.Real(kept, secret.Fresh(), nil)
	t.Cleanup(func() { _ = lines.Close() })
	c.Hosts, c.Asker, c.Issuers = demoHost, demoAnswers, demoCA
	d := &demo{T: t, Farm: "harbour", Controller: controller.New(c), desk: access.Desk{Store: kept}, at: time.Now(), versions: map[string][]farm.Version{}}
	for _, name := range []string{"deploy-key", "pagerduty", "slack", "tickets", "ping"} {
		if err := d.Controller.SetSecret(ctx, d.Farm, name, farm.NewSecret([]byte("nobody is called with it")), "mira.okafor"); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(demoFarm, resolver(t))
	if _, err := d.Controller.Apply(ctx, []byte(text), "farm.yaml", "mira.okafor", 0); err != nil {
		t.Fatal(err)
	}
	d.update(d.fill)
	if err := d.Controller.AskNodes(ctx, d.Farm); err != nil {
		t.Fatal(err)
	}
	d.people()
	gate, err := access.NewGate(access.Config{Store: kept, Grants: []access.GroupGrant{
		{Group: "platform", Grant: store.Grant{Role: "admin"}}, {Group: "shop-team", Grant: store.Grant{Role: "operator", Tags: []string{"shop"}}}, {Group: "release", Grant: store.Grant{Role: "approver"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := web.New(web.Config{Controller: d.Controller, Gate: gate, Guard: access.NewGuard(kept, nil), Version: "v1.4.0"})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	d.URL = server.URL
	return d
}

func (d *demo) update(f func(context.Context, *store.Tx) error) {
	d.Helper()
	ctx := d.Context()
	if err := d.desk.Store.Update(ctx, func(tx *store.Tx) error { return f(ctx, tx) }); err != nil {
		d.Fatal(err)
	}
}

// people are who may come in, and what they did.
func (d *demo) people() {
	d.Helper()
	for _, k := range []struct {
		name  string
		grant store.Grant
	}{
		{"grafana", store.Grant{Role: "viewer"}}, {"shop-ci", store.Grant{Role: "operator", Farm: d.Farm, Tags: []string{"shop"}}},
		{"release-bot", store.Grant{Role: "approver", Farm: d.Farm}}, {"mira.okafor", store.Grant{Role: "admin"}},
	} {
		_, secret, err := d.desk.Create(d.Context(), access.TokenAsk{Name: k.name, Grants: []store.Grant{k.grant}}, access.Local("jonas.weber"))
		if err != nil {
			d.Fatal(err)
		}
		d.Token = string(secret.Reveal())
	}
	book := audit.Book{Store: d.desk.Store}
	for i, e := range []audit.Entry{
		{Actor: "jonas.weber", Via: "oidc", Role: "admin", Action: "apply", After: farm.Fingerprint([]byte("a"))},
		{Actor: "shop-ci", Via: "token", Role: "operator", Action: "renew", Object: "site shop"},
		{Actor: "shop-ci", Via: "token", Role: "operator", Action: "apply", Result: audit.Refused},
		{Actor: "mira.okafor", Via: "oidc", Role: "admin", Action: "create-token"},
		{Actor: "lea.brandt", Via: "oidc", Role: "operator", Action: "pause", Object: "rollout docs"},
		{Actor: "mira.okafor", Via: "oidc", Role: "admin", Action: "apply", Before: farm.Fingerprint([]byte("a")), After: farm.Fingerprint([]byte("b"))},
		{Actor: "lea.brandt", Via: "oidc", Role: "operator", Action: "hold", Object: "node lb2"},
	} {
		e.From, e.Request = fmt.Sprintf("10.20.9.%d", 40+i), "r"+strconv.Itoa(i)
		if e.Result == "" {
			e.Farm, e.Result, e.Status = d.Farm, audit.Done, 200
		}
		if err := book.Write(d.Context(), e); err != nil {
			d.Fatal(err)
		}
	}
}

// resolver is a DNS server in which the demo's zone allows its CA.
func resolver(t *testing.T) (address string) {
	t.Helper()
	up := make(chan struct{})
	line, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: line, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeCAA {
			m.Answer = []dns.RR{&dns.CAA{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeCAA, Class: dns.ClassINET, Ttl: 300}, Tag: "issue", Value: "letsencrypt.org"}}
		}
		_ = w.WriteMsg(m) // whoever asked has gone
	})}
	go func() { _ = server.ActivateAndServe() }() // ends with Shutdown
	<-up
	t.Cleanup(func() { _ = server.Shutdown() })
	return line.LocalAddr().String()
}

// A demoLine is a node that answers, but for web4.
type demoLine struct {
	host.Host
	node string
}

func demoHost(_ context.Context, _ string, n farm.Node, _ controller.Context) (host.Host, error) {
	return demoLine{node: n.Name}, nil
}

func (h demoLine) List(context.Context, string) ([]host.Entry, error) {
	if h.node == "web4" {
		return nil, fmt.Errorf("dial tcp 10.20.1.14:22: connect: no route to host")
	}
	return nil, nil
}

func (h demoLine) Run(context.Context, []string, []byte) ([]byte, error) {
	at := time.Now()
	if h.node == "mail1" {
		at = at.Add(-74 * time.Second)
	}
	return []byte(strconv.FormatInt(at.Unix(), 10)), nil
}

// demoAnswers is a preflight in which one node answers something else.
func demoAnswers(_ context.Context, a http01.Ask) (all []http01.Finding) {
	for _, name := range a.Names {
		f := http01.Finding{Check: "http-01", Name: name, Verdict: http01.Right, Saw: "the answer"}
		for _, address := range []string{"203.0.113.10", "203.0.113.11"} {
			f.Address = address
			all = append(all, f)
		}
		f.Address, f.Verdict, f.Saw, f.Remedy = "2001:db8::10", http01.Unclear, "no route to host", "see whether the AAAA record is meant: the CA asks it first"
		all = append(all, f)
	}
	return all
}

// A demoAccount is at a CA that is never asked.
type demoAccount struct{ controller.Account }

func (demoAccount) Identities(context.Context) ([]string, error) {
	return []string{"letsencrypt.org"}, nil
}

func demoCA(context.Context, controller.IssuerConfig) (controller.Account, error) {
	return demoAccount{}, nil
}

// chainFor is a leaf and its issuer, in PEM.
func (d *demo) chainFor(names []string, issuer string, from, until time.Time) (chain []byte, fingerprint string) {
	d.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.Fatal(err)
	}
	above := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: issuer}, NotBefore: from.AddDate(-1, 0, 0), NotAfter: from.AddDate(2, 0, 0), IsCA: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: from, NotAfter: until}
	for i, c := range []*x509.Certificate{leaf, above} {
		der, err := x509.CreateCertificate(rand.Reader, c, above, &key.PublicKey, key)
		if err != nil {
			d.Fatal(err)
		}
		if i == 0 {
			fingerprint = farm.Fingerprint(der)
		}
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return []byte(strings.TrimSpace(string(chain))), fingerprint
}
