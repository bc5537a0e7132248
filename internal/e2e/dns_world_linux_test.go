package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

// A nameWorld is a world in which names are asked for as on the internet: from the
// root down, by a resolver that is told no shortcut. All name servers have addresses
// of their own, since the world asks them at port 53.
//
//	.  test                                    BIND        10.77.0.52
//	bind.test  hop.test  split.test            BIND        10.77.0.53
//	knot.test  split.test (another)            Knot        10.77.0.55
//	pdns.test                                  PowerDNS    10.77.0.56
//	own.test, once it is delegated             controllers 10.77.0.57, 58
//	resolver                                   BIND        10.77.0.54, and .59 with QNAME minimisation
type nameWorld struct {
	*world
	mu      sync.Mutex
	onTold  func(*http.Request) // called when the CA is told to look, before it does; nil: nothing
	issuers map[string]issuer   // by their names in farm.yaml
}

// An issuer is a CA as farm.yaml names it.
type issuer struct{ directory, profile, roots string }

// The addresses of the name servers.
const (
	rootAt     = worldNet + "52"
	bindAt     = worldNet + "53"
	resolverAt = worldNet + "54"
	knotAt     = worldNet + "55"
	pdnsAt     = worldNet + "56"
	ownAt      = worldNet + "57"
	otherAt    = worldNet + "58"
	minimalAt  = worldNet + "59"
	stepAt     = worldNet + "60"
)

// The keys of dynamic updates: the controller's may write TXT, a person's anything.
const (
	controllerKey = "controller-key"
	personKey     = "person-key"
	updateSecret  = "c2VjcmV0IG9mIHRoaXMgdGVzdCwgMzIgYnl0ZXMgbG9uZw=="
)

const pdnsSecret = "the key of the API of PowerDNS"

// dnsServers are what a nameWorld needs beside what every world does.
var dnsServers = []string{"named", "knotd", "pdns_server"}

// inNames is inWorld for a test that needs these programs, too.
func inNames(t *testing.T, programs []string, environment ...string) bool {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is missing: apt-get install bind9 knot pdns-server pdns-backend-sqlite3", p)
		}
	}
	return inWorld(t, environment...)
}

// newNames builds the network with its name servers and a CA that asks the
// resolver at an address.
func newNames(t *testing.T, resolver string) *nameWorld {
	t.Helper()
	w := &nameWorld{world: newNetwork(t)}
	for _, a := range []string{rootAt, bindAt, resolverAt, knotAt, pdnsAt, ownAt, otherAt, minimalAt, stepAt} {
		must(t, command("ip", "addr", "add", a+"/24", "dev", "br0"))
	}
	w.startBIND(t)
	w.startResolver(t)
	w.startKnot(t)
	for at, zone := range map[string]string{rootAt: "test", bindAt: "bind.test", knotAt: "knot.test", resolverAt: "knot.test", minimalAt: "bind.test"} {
		within(t, 20*time.Second, "the name server at "+at+" knows "+zone, func() bool { return len(records(at, zone, dns.TypeSOA)) == 1 })
	}
	var err error
	w.ca, err = issuetest.Start(issuetest.Options{DNS: net.JoinHostPort(resolver, "53"), Wrap: w.front})
	must(t, err)
	t.Cleanup(func() { must(t, w.ca.Close()) })
	w.issuers = map[string]issuer{"pebble": {w.ca.Directory, "default", w.ca.ListenRoots + w.ca.Roots}}
	return w
}

// front stands before the CA.
func (w *nameWorld) front(ca http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		told := w.onTold
		w.mu.Unlock()
		if told != nil && r.Method == http.MethodPost && issuetest.EndpointOf(r) == issuetest.Challenge {
			told(r)
		}
		ca.ServeHTTP(rw, r)
	})
}

// whenTold has something done whenever the CA is told to look.
func (w *nameWorld) whenTold(do func(*http.Request)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onTold = do
}

// process starts a program that ends with the test. What it says is told when the
// test has failed.
func (w *nameWorld) process(t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	out := &locked{}
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, c.Start())
	t.Cleanup(func() {
		quit(c)
		if t.Failed() {
			said := out.String()
			t.Logf("%s:\n%s", strings.Join(argv, " "), said[max(0, len(said)-6000):])
		}
	})
	return c
}

// folder makes a folder of a server, with files.
func (w *nameWorld) folder(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(w.dir, name)
	must(t, os.MkdirAll(dir, 0o755))
	for file, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
	}
	return dir
}

// zone is the text of a zone that one server has, with more records.
func zone(name, at, more string) string {
	host := "ns." + name
	return fmt.Sprintf("$ORIGIN %s\n$TTL 60\n@ SOA %[2]s hostmaster.%[2]s 1 3600 600 604800 60\n@ NS %[2]s\n%[2]s A %[3]s\n%[4]s",
		dns.Fqdn(name), dns.Fqdn(host), at, more)
}

// startBIND starts two servers: of what leads to the zones, and of some of those.
// They are apart, as elsewhere, since a resolver learns where a zone is from the one
// above it.
func (w *nameWorld) startBIND(t *testing.T) {
	t.Helper()
	var delegated strings.Builder
	for _, z := range [][2]string{{"bind", bindAt}, {"hop", bindAt}, {"split", bindAt}, {"knot", knotAt}, {"pdns", pdnsAt}} {
		fmt.Fprintf(&delegated, "%[1]s NS ns.%[1]s\nns.%[1]s A %[2]s\n", z[0], z[1])
	}
	w.runBIND(t, "root", rootAt, map[string]string{
		".":    fmt.Sprintf("$TTL 60\n. SOA ns.test. hostmaster.test. 1 3600 600 604800 60\n. NS ns.test.\ntest. NS ns.test.\nns.test. A %s\n", rootAt),
		"test": zone("test", rootAt, delegated.String()),
	})
	w.runBIND(t, "bind", bindAt, map[string]string{
		"bind.test":  zone("bind.test", bindAt, "shop A "+balancerAt+"\nwww.mix A "+balancerAt+"\nstays A "+balancerAt+"\nwww.step A "+balancerAt+"\n"),
		"hop.test":   zone("hop.test", bindAt, ""),
		"split.test": zone("split.test", bindAt, "@ A "+balancerAt+"\n_acme-challenge CNAME split.knot.test.\n"),
	})
}

// runBIND starts a server with zones, by their texts.
func (w *nameWorld) runBIND(t *testing.T, name, at string, zones map[string]string) {
	t.Helper()
	files := map[string]string{}
	var listed strings.Builder
	for of, text := range zones {
		file := "zone-" + of
		files[file] = text
		fmt.Fprintf(&listed, "zone %q { type primary; file %q; update-policy { grant %s zonesub ANY; grant %s zonesub TXT; }; };\n", of, file, personKey, controllerKey)
	}
	dir := filepath.Join(w.dir, name)
	files["named.conf"] = fmt.Sprintf(`%s
options { directory %[2]q; managed-keys-directory %[2]q; pid-file none; session-keyfile none; dnssec-validation no; notify no;
  recursion no; listen-on port 53 { %[3]s; }; listen-on-v6 { none; }; };
controls { };
%[4]s`, bindKeys(), dir, at, listed.String())
	w.folder(t, name, files)
	w.process(t, "named", "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
}

func bindKeys() (text string) {
	for _, k := range []string{personKey, controllerKey} {
		text += fmt.Sprintf("key %s { algorithm hmac-sha256; secret %q; };\n", k, updateSecret)
	}
	return text
}

// startResolver starts a resolver that knows where the root is, and nothing else.
// It forgets soon what it was told, so that a test need not wait. But it remembers
// for a minute what was not there: whoever asks it for a record that is still to be
// written makes the order fail.
func (w *nameWorld) startResolver(t *testing.T) {
	t.Helper()
	dir := filepath.Join(w.dir, "resolver")
	hint := `zone "." { type hint; file "hints"; };`
	w.folder(t, "resolver", map[string]string{
		"hints": ". 60 NS ns.test.\nns.test. 60 A " + rootAt + "\n",
		"named.conf": fmt.Sprintf(`
options { directory %[1]q; managed-keys-directory %[1]q; pid-file none; session-keyfile none; dnssec-validation no;
  recursion yes; empty-zones-enable no; max-cache-ttl 2; max-ncache-ttl 60; listen-on port 53 { %[2]s; %[3]s; }; listen-on-v6 { none; }; };
controls { };
view "whole" { match-destinations { %[2]s; }; qname-minimization off; %[4]s };
view "minimal" { match-destinations { %[3]s; }; qname-minimization strict; %[4]s };
`, dir, resolverAt, minimalAt, hint),
	})
	w.process(t, "named", "-4", "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
}

// startKnot starts the server of knot.test, and of what the house alone sees as
// split.test.
func (w *nameWorld) startKnot(t *testing.T) {
	t.Helper()
	dir := filepath.Join(w.dir, "knot")
	var keys, zones strings.Builder
	for _, k := range []string{personKey, controllerKey} {
		fmt.Fprintf(&keys, "  - id: %s\n    algorithm: hmac-sha256\n    secret: %s\n", k, updateSecret)
	}
	for _, name := range []string{"knot.test", "split.test"} {
		fmt.Fprintf(&zones, "  - domain: %s\n    file: %[1]s\n    storage: %s\n    acl: [person, controller]\n    zonefile-sync: -1\n", name, dir)
	}
	w.folder(t, "knot", map[string]string{
		"knot.test":  zone("knot.test", knotAt, "shop A "+balancerAt+"\n"),
		"split.test": zone("split.test", knotAt, "@ A "+balancerAt+"\n"),
		"knot.conf": fmt.Sprintf(`server:
    rundir: %[1]s
    listen: %[2]s@53
database:
    storage: %[1]s
key:
%[3]sacl:
  - id: person
    key: %[4]s
    action: update
  - id: controller
    key: %[5]s
    action: update
    update-type: [TXT]
zone:
%[6]s`, dir, knotAt, keys.String(), personKey, controllerKey, zones.String()),
	})
	w.process(t, "knotd", "-c", filepath.Join(dir, "knot.conf"))
}

// records are those that a server gives for a name and a type; none where it does
// not answer.
func records(at, name string, kind uint16) []dns.RR {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	reply, _, err := (&dns.Client{Net: "tcp", Timeout: 2 * time.Second}).Exchange(m, net.JoinHostPort(at, "53"))
	if err != nil {
		return nil
	}
	return reply.Answer
}

// texts are the TXT values that a server has at a name, sorted.
func texts(at, name string) (values []string) {
	for _, rr := range records(at, name, dns.TypeTXT) {
		if txt, ok := rr.(*dns.TXT); ok {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	slices.Sort(values)
	return values
}

// set adds records to a zone by hand, as a person with a key of his own does.
func set(t *testing.T, at, zone string, lines ...string) {
	t.Helper()
	m := new(dns.Msg).SetUpdate(dns.Fqdn(zone))
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		must(t, err)
		m.Insert([]dns.RR{rr})
	}
	m.SetTsig(dns.Fqdn(personKey), dns.HmacSHA256, 300, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{dns.Fqdn(personKey): updateSecret}}
	reply, _, err := c.Exchange(m, net.JoinHostPort(at, "53"))
	must(t, err)
	if reply.Rcode != dns.RcodeSuccess {
		t.Fatalf("the server at %s answers %s to an update of %s by %v", at, dns.RcodeToString[reply.Rcode], zone, lines)
	}
}

// setPrinted sets what `certfarm snippet SITE --dns` prints, each record in the zone
// that has its name. Zones are those of servers, by their addresses.
func setPrinted(t *testing.T, text string, zones map[string]string) {
	t.Helper()
	p := dns.NewZoneParser(strings.NewReader(text), ".", "")
	names := slices.SortedFunc(maps.Keys(zones), func(a, b string) int { return len(b) - len(a) })
	count := 0
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		i := slices.IndexFunc(names, func(z string) bool { return dns.IsSubDomain(dns.Fqdn(z), rr.Header().Name) })
		if i < 0 {
			t.Fatalf("%s is in none of %v", rr, names)
		}
		rr.Header().Ttl = 2
		set(t, zones[names[i]], names[i], rr.String())
		count++
	}
	must(t, p.Err())
	if count == 0 {
		t.Fatalf("there is no record in\n%s", text)
	}
}

// A wish is a site: its names, of which the first is asked for, and how they are
// proven.
type wish struct {
	issuer     string // empty: pebble
	names      []string
	validation string
	resolvers  map[string]string // addresses by zone, beside the resolver of the world
}

// by is the issuer's name in farm.yaml.
func (s wish) by() string { return cmp.Or(s.issuer, "pebble") }

// farmYAML is a farm with one site, as a person would write it. It has every way to
// write records.
func (w *nameWorld) farmYAML(t *testing.T, edge *node, s wish) []byte {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "farm: %s\nresolvers:\n  \".\": [%s]\n", farmName, resolverAt)
	for of, at := range s.resolvers {
		fmt.Fprintf(&b, "  %s: [%s]\n", of, at)
	}
	b.WriteString("issuers:\n")
	for name, i := range w.issuers {
		fmt.Fprintf(&b, "  %s:\n    acme: %s\n", name, i.directory)
		if i.profile != "" {
			fmt.Fprintf(&b, "    profile: %s\n", i.profile)
		}
		b.WriteString("    roots: |\n")
		for line := range strings.Lines(i.roots) {
			b.WriteString("      " + strings.TrimRight(line, "\n") + "\n")
		}
	}
	update, api := filepath.Join(w.dir, "update.key"), filepath.Join(w.dir, "api.key")
	must(t, os.WriteFile(update, []byte(updateSecret+"\n"), 0o600))
	must(t, os.WriteFile(api, []byte(pdnsSecret), 0o600))
	fmt.Fprintf(&b, `nodes:
  %[1]s: {address: %[2]s, local: true}
dns:
  bind: {provider: rfc2136, options: {server: %[3]s, key: %[4]s}, secrets: {key: {file: %[5]q}}}
  knot: {provider: rfc2136, options: {server: "ns.knot.test:53", key: %[4]s}, secrets: {key: {file: %[5]q}}}
  pdns: {options: {PDNS_API_URL: "http://%[6]s:8081"}, secrets: {PDNS_API_KEY: {file: %[7]q}}}
  own: {provider: builtin, silent: 1s, options: {zone: own.test, servers: [{host: ns1.own.test, addresses: [%[8]s]}, {host: ns2.own.test, addresses: [%[9]s]}]}}
`, edge.name, edge.addr, bindAt, controllerKey, update, pdnsAt, api, ownAt, otherAt)
	test, reload, start := edge.commands()
	fmt.Fprintf(&b, "sites:\n  %s:\n    names: %s\n    issuer: %s\n    validation: %s\n    targets:\n", siteName, words(s.names), s.by(), s.validation)
	fmt.Fprintf(&b, "      - kind: %s\n        on: %s\n        options: {pem: %q, store: %q, test: %s, reload: %s, start: %s}\n        endpoints: [{port: %d}]\n",
		edge.kind, edge.name, edge.files()[0], edge.path("store"), words(test), words(reload), words(start), httpsPort)
	b.WriteString("    policy: {soak: 0s, deadline: 30s, healthy_deadline: 5s}\n")
	return []byte(b.String())
}
