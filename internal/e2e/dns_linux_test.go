package e2e

import (
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/snippet"
)

// TestNames: names are proven by records in real name servers, for a CA that asks a
// real resolver. What was put up is gone afterwards, and what others put there is not.
func TestNames(t *testing.T) {
	if !inNames(t, dnsServers) {
		return
	}
	w := newNames(t, resolverAt)
	program := w.program(t)
	t.Run("rfc2136 BIND", func(t *testing.T) { w.updates(t, "bind", bindAt) })
	t.Run("rfc2136 Knot", func(t *testing.T) { w.updates(t, "knot", knotAt) })
	t.Run("delegated over two zones", w.delegated)
	t.Run("delegated by a rule", w.delegatedByRule)
	t.Run("delegated in a circle", w.circle)
	t.Run("several methods", w.severalMethods)
	t.Run("address", w.address)
	t.Run("lego PowerDNS", func(t *testing.T) { w.throughLego(t, program(t)) })
}

// updates proves a name and its wildcard, which have two values at one name, where
// there is one of somebody else's already.
func (w *nameWorld) updates(t *testing.T, server, at string) {
	base := "shop." + server + ".test"
	w.besideOthers(t, at, base, wish{names: []string{base, "*." + base}, validation: "{dns: " + server + "}"},
		func(line string) { set(t, at, server+".test", line) })
}

// throughLego is the same through the API of PowerDNS.
func (w *nameWorld) throughLego(t *testing.T, program string) {
	w.startPowerDNS(t)
	w.helper = []string{program, "dns-helper"}
	w.besideOthers(t, pdnsAt, "shop.pdns.test", wish{names: []string{"shop.pdns.test", "*.shop.pdns.test"}, validation: "{dns: pdns}"},
		func(line string) { w.setPowerDNS(t, line) })
}

// besideOthers gets a certificate for a name and its wildcard.
func (w *nameWorld) besideOthers(t *testing.T, at, base string, s wish, set func(line string)) {
	t.Helper()
	const foreign = "somebody-elses-value"
	name := "_acme-challenge." + base
	set(fmt.Sprintf("%s. 2 TXT %q", name, foreign))
	var there [][]string
	var mu sync.Mutex
	w.whenTold(func(*http.Request) {
		mu.Lock()
		defer mu.Unlock()
		there = append(there, texts(at, name))
	})
	defer w.whenTold(nil)
	w.gets(t, w.control(t, strings.ReplaceAll(base, ".", "-")), s)
	mu.Lock()
	defer mu.Unlock()
	if len(there) == 0 || len(there[0]) != 3 || !slices.Contains(there[0], foreign) {
		t.Errorf("when the CA was told to look, the values were %q, want two beside %q", there, foreign)
	}
	w.left(t, at, name, foreign)
}

// delegated leads over a second zone into a third one.
func (w *nameWorld) delegated(t *testing.T) {
	set(t, bindAt, "bind.test", "_acme-challenge.two.bind.test. 2 CNAME two.hop.test.", "two.bind.test. 2 A "+balancerAt)
	set(t, bindAt, "hop.test", "two.hop.test. 2 CNAME two.knot.test.")
	w.gets(t, w.control(t, "two"), wish{names: []string{"two.bind.test", "*.two.bind.test"}, validation: "{dns: knot}"})
	w.left(t, knotAt, "two.knot.test")
}

// delegatedByRule: the house sees another split.test than the world, without the
// CNAME that leads to the record, and farm.yaml says where it leads.
func (w *nameWorld) delegatedByRule(t *testing.T) {
	w.gets(t, w.control(t, "rule"), wish{
		names:      []string{"split.test", "*.split.test"},
		validation: `{dns: knot, delegate: {"*.split.test": split.knot.test}}`,
		resolvers:  map[string]string{"split.test": knotAt},
	})
	w.left(t, knotAt, "split.knot.test")
	w.left(t, knotAt, "_acme-challenge.split.test")
}

// circle: no order is opened for CNAMEs that lead nowhere; it goes on when they do.
func (w *nameWorld) circle(t *testing.T) {
	set(t, bindAt, "bind.test", "_acme-challenge.loop.bind.test. 2 CNAME loop.hop.test.", "loop.bind.test. 2 A "+balancerAt)
	set(t, bindAt, "hop.test", "loop.hop.test. 2 CNAME _acme-challenge.loop.bind.test.")
	r := w.control(t, "loop")
	s := wish{names: []string{"loop.bind.test"}, validation: "{dns: knot}"}
	r.applyText(t, w.farmYAML(t, r.nodes[0], s))
	r.held(t)
	w.verdicts(t, r, map[string]http01.Sort{"loop.bind.test dns-01": http01.Wrong})
	if n := w.opened(s); n != 0 {
		t.Errorf("the CA has heard of %d orders", n)
	}
	set(t, bindAt, "hop.test", "loop.hop.test. 2 CNAME loop.knot.test.") // a name has one CNAME: it takes the other's place
	w.verdicts(t, r, map[string]http01.Sort{"loop.bind.test dns-01": http01.Right})
	w.goesOn(t, r, s)
	w.left(t, knotAt, "loop.knot.test")
}

// severalMethods has a name for each in one certificate: one that the balancer
// answers for, a wildcard, and one whose record a person sets to stay.
func (w *nameWorld) severalMethods(t *testing.T) {
	w.balancer.run(t, snippet.Snippet{})
	r := w.control(t, "mix")
	s := wish{
		names: []string{"www.mix.bind.test", "*.mix.bind.test", "stays.bind.test"},
		validation: `
      - {names: [www.mix.bind.test], via: gateway}
      - {names: ["*.mix.bind.test"], dns: bind}
      - {method: dns-persist-01}`,
	}
	r.applyText(t, w.farmYAML(t, r.nodes[0], s))
	r.held(t)
	w.verdicts(t, r, map[string]http01.Sort{
		"www.mix.bind.test http-01": http01.Wrong, "*.mix.bind.test dns-01": http01.Right, "stays.bind.test dns-persist-01": http01.Wrong,
	})
	rule, err := r.Snippet(t.Context(), farmName, siteName, controller.SnippetAsk{Server: snippet.HAProxy, Controllers: w.ask("", "", "").Controllers})
	must(t, err)
	w.balancer.run(t, rule)
	w.setSnippet(t, r)
	w.verdicts(t, r, map[string]http01.Sort{
		"www.mix.bind.test http-01": http01.Right, "*.mix.bind.test dns-01": http01.Right, "stays.bind.test dns-persist-01": http01.Right,
	})
	if n := w.opened(s); n != 0 {
		t.Errorf("the CA has heard of %d orders", n)
	}
	w.goesOn(t, r, s)
	w.left(t, bindAt, "_acme-challenge.mix.bind.test")
	if len(texts(bindAt, "_validation-persist.stays.bind.test")) != 1 {
		t.Error("the record that is to stay is gone")
	}
}

// address gets a certificate for an IP address.
func (w *nameWorld) address(t *testing.T) {
	r := w.control(t, "address")
	s := wish{names: []string{balancerAt}, validation: "{via: gateway}"}
	rule, err := snippet.Rule(snippet.Ask{
		Server: snippet.HAProxy, Via: farm.Gateway, Site: siteName, Names: s.names, Controllers: w.ask("", "", "").Controllers,
	})
	must(t, err)
	w.balancer.run(t, rule)
	w.gets(t, r, s)
}

// gets applies a wish and holds that it comes true.
func (w *nameWorld) gets(t *testing.T, r *rig, s wish) {
	t.Helper()
	before := w.finalized(s)
	r.applyText(t, w.farmYAML(t, r.nodes[0], s))
	w.comes(t, r, s, before)
}

// goesOn asks for a certificate, or for an order that was held to go on at once, and
// holds that it comes.
func (w *nameWorld) goesOn(t *testing.T, r *rig, s wish) {
	t.Helper()
	before := w.finalized(s)
	must(t, r.Renew(t.Context(), farmName, siteName, "e2e"))
	w.comes(t, r, s, before)
}

// comes holds that a certificate is got by one order, and served for every name.
func (w *nameWorld) comes(t *testing.T, r *rig, s wish, before int) {
	t.Helper()
	ro := r.ended(t, limit, farm.Done)
	w.seen(t, r, s, r.leaf(t, ro.To.ID))
	if n := w.finalized(s); s.issuer == "" && n != before+1 {
		t.Errorf("%d orders were finalized for one certificate", n-before)
	}
}

// seen holds that the edge serves a leaf, trusted, for every name. A worker of nginx
// that is told to go may still take a connection.
func (w *nameWorld) seen(t *testing.T, r *rig, s wish, leaf string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.issuers[s.by()].roots))
	for _, name := range s.names {
		if below, ok := strings.CutPrefix(name, "*."); ok {
			name = "any." + below
		}
		within(t, limit, "leaf "+farm.Short(leaf)+" is served for "+name, func() bool {
			got, err := leafAt(t, r.nodes[0].https(), name, roots)
			return err == nil && got == leaf
		})
	}
}

// setOf is how the CA counts the names.
func setOf(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	return strings.Join(names, ",")
}

func (w *nameWorld) opened(s wish) int    { return w.ca.Stats().Orders[setOf(s.names)] }
func (w *nameWorld) finalized(s wish) int { return w.ca.Stats().Finalized[setOf(s.names)] }

// left waits until there are these values at a name, and no other.
func (w *nameWorld) left(t *testing.T, at, name string, want ...string) {
	t.Helper()
	within(t, limit, fmt.Sprintf("the server at %s has %q at %s", at, want, name), func() bool { return slices.Equal(texts(at, name), want) })
}

// verdicts holds what preflight says of names and checks; what it says of CAA must
// hold nothing.
func (w *nameWorld) verdicts(t *testing.T, r *rig, want map[string]http01.Sort) {
	t.Helper()
	report, err := r.Preflight(t.Context(), farmName, siteName, false)
	must(t, err)
	got := map[string]http01.Sort{}
	for _, f := range report.Findings {
		if f.Check == "caa" {
			if f.Verdict == http01.Wrong {
				t.Error(f)
			}
			continue
		}
		got[f.Name+" "+f.Check] = f.Verdict
		if f.Verdict == http01.Wrong && f.Remedy == "" && !strings.Contains(f.Saw, ";") {
			t.Errorf("no remedy: %s", f)
		}
	}
	for of, verdict := range want {
		if got[of] != verdict {
			t.Errorf("%s is %q, want %q:\n%v", of, got[of], verdict, report.Findings)
		}
	}
}

// setSnippet sets what `certfarm snippet SITE --dns` prints.
func (w *nameWorld) setSnippet(t *testing.T, r *rig) {
	t.Helper()
	s, err := r.SnippetDNS(t.Context(), farmName, siteName)
	must(t, err)
	var text strings.Builder
	for _, p := range s.Parts {
		text.WriteString(p.Text)
	}
	setPrinted(t, text.String(), map[string]string{"bind.test": bindAt, "test": rootAt})
}

// program begins to build certfarm as it is shipped, and returns what waits for it.
func (w *world) program(t *testing.T) (built func(*testing.T) string) {
	t.Helper()
	file := filepath.Join(w.dir, "certfarm")
	var err error
	var build sync.WaitGroup
	build.Go(func() { err = command("env", "CGO_ENABLED=0", "go", "build", "-o", file, "../../cmd/certfarm") })
	t.Cleanup(build.Wait)
	return func(t *testing.T) string {
		t.Helper()
		build.Wait()
		must(t, err)
		return file
	}
}

// startPowerDNS starts the server of pdns.test, with its API.
func (w *nameWorld) startPowerDNS(t *testing.T) {
	t.Helper()
	schema, err := os.ReadFile("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
	must(t, err)
	dir := filepath.Join(w.dir, "pdns")
	file := filepath.Join(dir, "pdns.db")
	w.folder(t, "pdns", map[string]string{"pdns.conf": fmt.Sprintf(`launch=gsqlite3
gsqlite3-database=%s
gsqlite3-pragma-synchronous=0
local-address=%s
socket-dir=%s
api=yes
api-key=%s
webserver=yes
webserver-address=%[2]s
webserver-port=8081
webserver-allow-from=%[5]s0/24
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
guardian=no
daemon=no
`, file, pdnsAt, dir, pdnsSecret, worldNet)})
	db, err := sql.Open("sqlite", file)
	must(t, err)
	_, err = db.ExecContext(t.Context(), string(schema))
	must(t, errors.Join(err, db.Close()))
	w.process(t, "pdns_server", "--config-dir="+dir)
	var said error
	within(t, 20*time.Second, "PowerDNS makes a zone", func() bool {
		said = askPowerDNS(t, http.MethodPost, "zones", `{"name":"pdns.test.","kind":"Native","nameservers":["ns.pdns.test."]}`)
		return said == nil
	})
	w.setPowerDNS(t, "ns.pdns.test. 60 A "+pdnsAt)
	w.setPowerDNS(t, "shop.pdns.test. 60 A "+balancerAt)
}

// setPowerDNS makes a record the whole answer for its name and type.
func (w *nameWorld) setPowerDNS(t *testing.T, line string) {
	t.Helper()
	rr, err := dns.NewRR(line)
	must(t, err)
	h := rr.Header()
	must(t, askPowerDNS(t, http.MethodPatch, "zones/pdns.test.", fmt.Sprintf(
		`{"rrsets":[{"name":%q,"type":%q,"ttl":%d,"changetype":"REPLACE","records":[{"content":%q,"disabled":false}]}]}`,
		h.Name, dns.TypeToString[h.Rrtype], h.Ttl, strings.TrimPrefix(rr.String(), h.String()))))
}

func askPowerDNS(t *testing.T, method, path, body string) error {
	t.Helper()
	url := "http://" + netip.AddrPortFrom(netip.MustParseAddr(pdnsAt), 8081).String() + "/api/v1/servers/localhost/" + path
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must(t, err)
	req.Header.Set("X-API-Key", pdnsSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(resp.Body) // the status is bad enough
		return fmt.Errorf("PowerDNS answers %s: %s", resp.Status, text)
	}
	return nil
}
