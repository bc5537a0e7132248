// Package lookuptest is a small DNS for tests: name servers and a resolver on
// loopback, over UDP and TCP, which misbehave on purpose.
//
//	lookup.Client ──Dial──→ "192.0.2.53:53" resolver ──┐
//	              ──Dial──→ "192.0.2.1:53"  server ────┴─→ zones
//
// Servers have addresses of the documentation ranges (RFC 5737), which lookup's
// Dial leads to their loopback ports: nothing leaves the machine.
package lookuptest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
)

// Resolver is the address of the world's resolver.
const Resolver = "192.0.2.53:53"

// A Fault is how a server misbehaves.
type Fault string

// The faults.
const (
	None     Fault = ""
	Silent   Fault = "silent"   // it does not answer
	Failing  Fault = "failing"  // SERVFAIL
	Refusing Fault = "refusing" // REFUSED
	Lame     Fault = "lame"     // it does not have the zone, and refers to the root
	Lagging  Fault = "lagging"  // it has the zones as they were when the fault began
	Hijacked Fault = "hijacked" // a resolver on the way answers for it
	NoRoute  Fault = "no route" // there is no way to it from this machine
)

// records are a zone's, by canonical name with its last dot.
type records map[string][]dns.RR

type server struct {
	zones  map[string]bool
	fault  Fault
	answer func(q *dns.Msg) *dns.Msg
	then   map[string]records // of a lagging server
	asked  []string
	at     string // host:port on loopback
}

// A World is zones, the servers that have them, and a resolver.
type World struct {
	t       testing.TB
	mu      sync.Mutex
	zones   map[string]records
	servers map[string]*server // by IP
	dialled []string
}

// New makes a world that has only a resolver; it ends with the test.
func New(t testing.TB) *World {
	w := &World{t: t, zones: map[string]records{}, servers: map[string]*server{}}
	w.serve("192.0.2.53")
	return w
}

// Client asks in this world. A test with a silent server shortens its Timeout.
func (w *World) Client() lookup.Client {
	return lookup.Client{
		Resolvers: map[string][]string{".": {Resolver}},
		Timeout:   5 * time.Second, Tries: 1, Dial: w.dial,
	}
}

// Zone makes a zone, and servers ns1, ns2, … of it at the IP addresses.
func (w *World) Zone(zone string, ips ...string) {
	w.mu.Lock()
	w.zones[dns.CanonicalName(zone)] = records{}
	w.mu.Unlock()
	w.Add(zone, fmt.Sprintf("%s. 0 IN SOA ns1.%[1]s. hostmaster.%[1]s. 1 60 60 60 0", zone))
	for i, ip := range ips {
		w.serve(ip)
		w.mu.Lock()
		w.servers[ip].zones[dns.CanonicalName(zone)] = true
		w.mu.Unlock()
		kind := "A"
		if strings.Contains(ip, ":") {
			kind = "AAAA"
		}
		w.Add(zone, fmt.Sprintf("%s. 0 IN NS ns%d.%[1]s.", zone, i+1), fmt.Sprintf("ns%d.%s. 0 IN %s %s", i+1, zone, kind, ip))
	}
}

// Add puts records, as a zone file has them, into a zone.
func (w *World) Add(zone string, lines ...string) {
	w.t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil {
			w.t.Fatalf("record %q: %v", line, err)
		}
		w.mu.Lock()
		of, name := w.zones[dns.CanonicalName(zone)], dns.CanonicalName(rr.Header().Name)
		of[name] = append(of[name], rr)
		w.mu.Unlock()
	}
}

// Delete takes away what is at a name.
func (w *World) Delete(zone, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.zones[dns.CanonicalName(zone)], dns.CanonicalName(name))
}

// PutText adds a TXT value at a name of a zone, once.
func (w *World) PutText(zone, name, value string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	of, ok := w.zones[dns.CanonicalName(zone)]
	if !ok || !dns.IsSubDomain(dns.Fqdn(zone), dns.Fqdn(name)) {
		return fmt.Errorf("%s is not in a zone %s", name, zone)
	}
	key := dns.CanonicalName(name)
	if slices.Contains(lookup.Texts(of[key], name), value) {
		return nil
	}
	h := dns.RR_Header{Name: key, Rrtype: dns.TypeTXT, Class: dns.ClassINET}
	of[key] = append(slices.Clone(of[key]), &dns.TXT{Hdr: h, Txt: []string{value}})
	return nil
}

// RemoveText takes a TXT value away.
func (w *World) RemoveText(zone, name, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of, key := w.zones[dns.CanonicalName(zone)], dns.CanonicalName(name)
	of[key] = slices.DeleteFunc(slices.Clone(of[key]), func(r dns.RR) bool {
		return slices.Contains(lookup.Texts([]dns.RR{r}, name), value)
	})
	if len(of[key]) == 0 {
		delete(of, key)
	}
}

// Texts are the TXT values at a name of a zone.
func (w *World) Texts(zone, name string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return lookup.Texts(w.zones[dns.CanonicalName(zone)][dns.CanonicalName(name)], name)
}

// Break gives the server at an IP a fault, or None.
func (w *World) Break(ip string, f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.servers[ip]
	s.fault, s.then = f, nil
	if f != Lagging {
		return
	}
	s.then = map[string]records{}
	for zone, of := range w.zones {
		s.then[zone] = records{}
		for name, rrs := range of {
			s.then[zone][name] = slices.Clone(rrs)
		}
	}
}

// Answer lets a function answer for the server at an IP; nil is no answer. The
// function may be called by several goroutines.
func (w *World) Answer(ip string, answer func(q *dns.Msg) *dns.Msg) {
	w.serve(ip)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.servers[ip].answer = answer
}

// Asked are the questions that the server at an IP was asked, such as
// "www.farm.test. TXT".
func (w *World) Asked(ip string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.servers[ip].asked)
}

// Dialled are the networks and addresses that were connected to, such as
// "udp 192.0.2.1:53".
func (w *World) Dialled() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.dialled)
}

func (w *World) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ip, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	s, ok := w.servers[ip]
	w.dialled = append(w.dialled, network+" "+address)
	away := !ok || s.fault == NoRoute
	at := ""
	if ok {
		at = s.at
	}
	w.mu.Unlock()
	if away {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("no route to %s", address)}
	}
	return (&net.Dialer{}).DialContext(ctx, network, at)
}
