package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/lab"
)

// The names of a farm that is proven over DNS.
const (
	record  = "_acme-challenge.shop.test"
	ownZone = "own.test"
	foreign = "the-value-of-somebody-else"
	tsigKey = "crash-key"
	tsig    = "dGhlIHNlY3JldCBvZiB0aGlzIHRlc3QsIDMyIGJ5dGVz"
)

// A death at any point of a validation over DNS leaves nothing of ours behind: in a
// name server that is told of each value, or in the store, from which we answer by
// ourselves. What somebody else has put there stays.
func TestADeathWhileProvingOverDNS(t *testing.T) {
	for _, way := range []string{"rfc2136", "builtin"} {
		t.Run(way, func(t *testing.T) {
			h := &hosters{way: way, by: map[*lab.Lab]*hoster{}}
			defer h.close()
			h.everyPoint(t, story{name: first.name, outcome: first.outcome, ask: h.first})
		})
	}
}

// everyPoint dies at the points of the validation: from when an order is opened to
// when its answers are taken away.
func (h *hosters) everyPoint(t *testing.T, s story) {
	began := time.Now()
	golden := newFarm(t)
	err := golden.tell(t.Context(), s, point{})
	if err == nil {
		err = h.check(golden)
	}
	golden.end(t)
	if err != nil {
		t.Fatalf("without a death: %v", err)
	}
	points := validation(golden.life.points(soak))
	if len(points) < sample {
		t.Fatalf("there are %d points in a validation: %v", len(points), points)
	}
	if raced && !soak {
		points = some(t, points, sample)
	}
	if only != "" {
		points = named(golden.life.points(true))
	}
	next := make(chan point)
	var workers sync.WaitGroup
	for range min(atOnce(), len(points)) {
		workers.Go(func() {
			r := newFarm(t)
			for p := range next {
				r = s.once(t, r, p)
				if err := h.check(r); err != nil {
					t.Errorf("death %s: %v", p, err)
					r.spoiled = true
				}
			}
			r.end(t)
		})
	}
	for _, p := range points {
		next <- p
	}
	close(next)
	workers.Wait()
	t.Logf("%d deaths; %s", len(points), time.Since(began).Round(time.Second))
}

// validation are the points from the order's begin to the end of its clean-up.
func validation(all []point) []point {
	from := slices.IndexFunc(all, func(p point) bool { return p.step == "ca newOrder" })
	to := from
	for i, p := range all {
		if p.step == "solver clean up" {
			to = i
		}
	}
	return all[max(from, 0) : to+1]
}

// hosters are what farms have beside their machines when they are proven over DNS:
// one for each farm, as long as the test lasts.
type hosters struct {
	way string
	mu  sync.Mutex
	by  map[*lab.Lab]*hoster
}

// A hoster is name servers of a farm. The CA asks the lab's own, which has what
// these are told.
type hoster struct {
	lab    *lab.DNS
	update *dns.Server      // takes signed updates
	serve  *dnsserve.Server // answers for the controllers' zone
	done   chan error

	mu      sync.Mutex
	values  []string        // rfc2136: those at the record's name
	source  dnsserve.Source // builtin: of the controller that lives
	changed chan struct{}   // closed when another one does
}

// first applies the lab's farm with the names proven over DNS.
func (h *hosters) first(ctx context.Context, r *run) error {
	n, err := h.of(r)
	if err != nil {
		return err
	}
	if err := h.rewrite(r.lab.FarmFile, n); err != nil {
		return err
	}
	return first.ask(ctx, r)
}

// of is the hoster of a farm, which asks the controller that lives now.
func (h *hosters) of(r *run) (n *hoster, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n = h.by[r.lab]; n == nil {
		n = &hoster{lab: r.lab.DNS, changed: make(chan struct{}), done: make(chan error, 1)}
		if err = n.start(h.way); err != nil {
			return nil, err
		}
		h.by[r.lab] = n
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.source = r.lab.Controller.ZoneSource()
	close(n.changed)
	n.changed = make(chan struct{})
	return n, nil
}

func (n *hoster) start(way string) (err error) {
	if way == "builtin" {
		n.serve, err = dnsserve.Listen(context.Background(), dnsserve.Config{Source: n, Addresses: []string{"127.0.0.1:0"}})
		return errors.Join(err, n.lab.SetRecords(record, dns.TypeCNAME, record+". 0 CNAME shop."+ownZone+"."))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	n.update = &dns.Server{
		Listener: l, Handler: n, TsigSecret: map[string]string{tsigKey + ".": tsig},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
	}
	go func() { n.done <- n.update.ActivateAndServe() }()
	n.values = []string{foreign}
	return n.show(n.values)
}

// show gives the lab's name server what is to be seen.
func (n *hoster) show(values []string) error {
	var lines []string
	for _, v := range values {
		lines = append(lines, fmt.Sprintf("%s. 0 TXT %q", record, v))
	}
	return n.lab.SetRecords(record, dns.TypeTXT, lines...)
}

// ServeDNS takes an update of one TXT record.
func (n *hoster) ServeDNS(w dns.ResponseWriter, asked *dns.Msg) {
	m := new(dns.Msg).SetReply(asked)
	if sig := asked.IsTsig(); sig == nil || w.TsigStatus() != nil {
		m.Rcode = dns.RcodeNotAuth
	} else {
		m.SetTsig(sig.Hdr.Name, sig.Algorithm, sig.Fudge, time.Now().Unix())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, rr := range asked.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok || dns.Fqdn(record) != txt.Hdr.Name || m.Rcode != dns.RcodeSuccess {
			m.Rcode = max(m.Rcode, dns.RcodeRefused)
			break
		}
		value := strings.Join(txt.Txt, "")
		n.values = slices.DeleteFunc(n.values, func(v string) bool { return v == value })
		if txt.Hdr.Class == dns.ClassINET {
			n.values = append(n.values, value)
		}
		if n.show(n.values) != nil {
			m.Rcode = dns.RcodeServerFailure
		}
	}
	_ = w.WriteMsg(m) // whoever asked may be dead
}

// Zones, Values and Below are the controller's. It may be dead, and then the next
// one answers.
func (n *hoster) Zones(ctx context.Context) (zones []dnsserve.Zone, err error) {
	err = n.ask(ctx, func(s dnsserve.Source) error {
		zones, err = s.Zones(ctx)
		return err
	})
	return zones, err
}

// Values are shown to the CA, too: it asks where they have been seen.
func (n *hoster) Values(ctx context.Context, name string) (values []string, err error) {
	err = n.ask(ctx, func(s dnsserve.Source) error {
		values, err = s.Values(ctx, name)
		return err
	})
	if err == nil && name == "shop."+ownZone {
		err = n.show(values)
	}
	return values, err
}

func (n *hoster) Below(ctx context.Context, name string) (there bool, err error) {
	err = n.ask(ctx, func(s dnsserve.Source) error {
		there, err = s.Below(ctx, name)
		return err
	})
	return there, err
}

// ask asks the controller, and once more the one after it.
func (n *hoster) ask(ctx context.Context, question func(dnsserve.Source) error) error {
	n.mu.Lock()
	source, changed := n.source, n.changed
	n.mu.Unlock()
	err := question(source)
	if err == nil {
		return nil
	}
	select {
	case <-changed:
		n.mu.Lock()
		source = n.source
		n.mu.Unlock()
		return question(source)
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
	return err
}

// rewrite has the lab's farm.yaml say that its names are proven over DNS.
func (h *hosters) rewrite(file string, n *hoster) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const was, is = "validation: {method: http-01, via: gateway}", "validation: {dns: over}"
	if !strings.Contains(string(text), was) {
		return nil // it says so
	}
	over := fmt.Sprintf(`
dns:
  over:
    provider: rfc2136
    ask: resolvers
    options: {server: %q, key: %s, zone: test}
    secrets: {key: {file: %q}}
`, n.address(), tsigKey, file+".key")
	resolvers := "resolvers: {"
	if h.way == "builtin" {
		over = fmt.Sprintf("\ndns:\n  over: {provider: builtin, ask: resolvers, options: {zone: %s, servers: [{host: ns.%[1]s, addresses: [127.0.0.1]}]}}\n", ownZone)
		resolvers += fmt.Sprintf("%s: [%q], ", ownZone, n.address())
	}
	err = os.WriteFile(file+".key", []byte(tsig), 0o600)
	changed := strings.Replace(strings.Replace(string(text), was, is, 1), "resolvers: {", resolvers, 1) + over
	return errors.Join(err, os.WriteFile(file, []byte(changed), 0o600))
}

func (n *hoster) address() string {
	if n.serve != nil {
		return n.serve.Addresses()[0]
	}
	return n.update.Listener.Addr().String()
}

// check says what is left of ours, and whether what is not ours is gone.
func (h *hosters) check(r *run) error {
	if r.lab == nil {
		return nil // it did not come so far
	}
	h.mu.Lock()
	n := h.by[r.lab]
	h.mu.Unlock()
	if n == nil {
		return errors.New("nobody was asked over DNS")
	}
	if h.way == "rfc2136" {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !slices.Equal(n.values, []string{foreign}) {
			return fmt.Errorf("the values at %s are %q, want %q alone", record, n.values, foreign)
		}
		return nil
	}
	db, err := sql.Open("sqlite", "file:"+r.database+"?_pragma=query_only(1)&_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var left int
	if err := db.QueryRow(`SELECT count(*) FROM records`).Scan(&left); err != nil || left > 0 {
		return errors.Join(err, fmt.Errorf("%d TXT values are left in the store", left))
	}
	return nil
}

// close ends the name servers.
func (h *hosters) close() {
	for _, n := range h.by {
		if n.serve != nil {
			n.serve.Close()
			continue
		}
		_ = n.update.Listener.Close() // ends the server, started or not
		<-n.done
	}
}
