package caa

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/dnssec"
)

// An Ask is a question for all names of an order.
type Ask struct {
	Names      []string          // as in the order: with "*." where it is a wildcard
	Issuers    []string          // the CA's caaIdentities; none: the CA does not say, so nothing is compared
	AccountURL string            // empty: there is no account yet
	Methods    map[string]string // name to method; a name that is missing may use any
	Lookup     lookup.Client
}

// A Finding is what came of one name.
type Finding struct {
	Name    string `json:"name"`
	Zone    string `json:"zone,omitzero"` // where the records are that decide; empty: there are none
	Verdict Sort   `json:"verdict"`
	Saw     string `json:"saw"`
	Remedy  string `json:"remedy,omitzero"`
}

// Sort says how a name stands, in the words of a preflight.
type Sort string

// The sorts of findings.
const (
	Right   Sort = "right"
	Wrong   Sort = "wrong"       // the CA must refuse
	Unclear Sort = "cannot tell" // DNS could not be asked from here
)

// together is how many names are asked for at a time.
const together = 16

// Check finds and judges the CAA records of all names, as a CA must before it
// issues. The findings come in the order of the names.
func Check(ctx context.Context, a Ask) []Finding {
	c := &climb{client: a.Lookup, steps: map[string]*step{}}
	findings := make([]Finding, len(a.Names))
	var g errgroup.Group
	g.SetLimit(together)
	for i, name := range a.Names {
		g.Go(func() error {
			findings[i] = a.check(ctx, c, name)
			return nil
		})
	}
	_ = g.Wait() // what goes wrong is a finding
	return findings
}

func (a Ask) check(ctx context.Context, c *climb, name string) Finding {
	f := Finding{Name: name, Verdict: Right}
	base, wildcard := strings.CutPrefix(name, "*.")
	if _, err := netip.ParseAddr(base); err == nil {
		f.Saw = "CAA is not about addresses"
		return f
	}
	set, err := c.find(ctx, base)
	if err != nil {
		return a.failed(ctx, f, err)
	}
	f.Zone = set.Zone
	if len(a.Issuers) == 0 && len(set.Records) > 0 {
		f.Verdict, f.Saw = Unclear, "there are CAA records, and the CA does not say by which names it may be allowed"
		f.Remedy = "look into the CA's documents for its CAA names, and compare them with the records of " + set.Zone
		return f
	}
	ok, why := Allows(set.Records, Wish{Issuers: a.Issuers, Account: a.AccountURL, Method: a.Methods[name], Wildcard: wildcard})
	f.Saw = printable(why)
	if !ok {
		f.Verdict, f.Remedy = Wrong, a.remedy(set, name, wildcard)
	}
	return f
}

// remedy is the record that would allow it, exactly.
func (a Ask) remedy(set Set, name string, wildcard bool) string {
	zone := set.Zone
	if tag, found := stranger(set.Records); found {
		return fmt.Sprintf("take the critical flag off the property %s of %s, or the property away", printable(strconv.Quote(tag)), zone)
	}
	p := Pinning{Zone: zone, Issuer: a.Issuers[0], Account: a.AccountURL, Wildcard: wildcard}
	if m := a.Methods[name]; m != "" {
		p.Methods = []string{m}
	}
	lines, err := Pin(p)
	if err != nil {
		return "add a CAA record to " + zone + " that allows " + a.Issuers[0]
	}
	line := lines[0]
	if wildcard {
		line = lines[1]
	}
	return "add this record, and keep those of other CAs that are still needed: " + line
}

// failed is a finding without records.
func (a Ask) failed(ctx context.Context, f Finding, err error) Finding {
	var at *stepError
	if errors.As(err, &at) && dnssec.ServFail(err) {
		f.Verdict, f.Zone = Wrong, at.name
		q := lookup.Question{Name: at.name, Type: dns.TypeCAA}
		if zone, broken := dnssec.Broken(ctx, a.Lookup, q, at.err); broken {
			f.Saw, f.Remedy = dnssec.Explain(zone)
			return f
		}
		f.Saw = "the name servers answer SERVFAIL when they are asked for CAA, and a CA must refuse then"
		f.Remedy = "name servers must answer for CAA even where there are none (NOERROR, RFC 8659 §6): ask who runs those of " + at.name
		return f
	}
	f.Verdict, f.Saw = Unclear, printable(err.Error())
	f.Remedy = "the DNS servers do not answer: look at the zone's name servers, and at resolvers in farm.yaml"
	return f
}

// A Set is the records that are relevant for a name, and where they are.
type Set struct {
	Zone    string // owner of the records, without the last dot; empty: there are none
	Records []Record
}

// Find finds the relevant records of a name: its own, or else those of the
// nearest parent that has some, up to the top-level domain (RFC 8659 §3). CNAMEs
// are followed at each step, and the climb goes on from the name itself, not from
// where they lead.
func Find(ctx context.Context, c lookup.Client, name string) (Set, error) {
	climb := &climb{client: c, steps: map[string]*step{}}
	return climb.find(ctx, name)
}

// A climb remembers each step, which names of one zone share.
type climb struct {
	client lookup.Client

	mu    sync.Mutex
	steps map[string]*step
}

type step struct {
	done chan struct{}
	set  Set
	err  error
}

// A stepError is a name on the way up that could not be asked for.
type stepError struct {
	name string
	err  error
}

// Error says for what name.
func (e *stepError) Error() string { return fmt.Sprintf("look up CAA of %s: %v", e.name, e.err) }

// Unwrap gives the reason.
func (e *stepError) Unwrap() error { return e.err }

func (c *climb) find(ctx context.Context, name string) (Set, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for more := name != ""; more; {
		set, err := c.step(ctx, name)
		if err != nil {
			return Set{}, &stepError{name, err}
		}
		if len(set.Records) > 0 {
			return set, nil
		}
		_, name, more = strings.Cut(name, ".")
	}
	return Set{}, nil
}

func (c *climb) step(ctx context.Context, name string) (Set, error) {
	c.mu.Lock()
	s, known := c.steps[name]
	if !known {
		s = &step{done: make(chan struct{})}
		c.steps[name] = s
	}
	c.mu.Unlock()
	if !known {
		s.set, s.err = c.ask(ctx, name)
		close(s.done)
	}
	select {
	case <-s.done:
		return s.set, s.err
	case <-ctx.Done():
		return Set{}, ctx.Err()
	}
}

// mostAliases is how many CNAMEs are followed at one step.
const mostAliases = 8

// ask asks for the records of one name. A resolver follows CNAMEs by itself; one
// that stops at a CNAME is asked again for where it leads.
func (c *climb) ask(ctx context.Context, name string) (Set, error) {
	for range mostAliases {
		a, err := c.client.Ask(ctx, lookup.Question{Name: name, Type: dns.TypeCAA})
		if err != nil {
			return Set{}, err
		}
		set, leads := read(a.Records, name)
		if len(set.Records) > 0 || leads == name || !a.Exists() {
			return set, nil
		}
		name = leads
	}
	return Set{}, fmt.Errorf("its CNAMEs do not end (at %s)", printable(name))
}

// read finds the CAA records of an answer, and where its CNAMEs lead to.
func read(records []dns.RR, name string) (set Set, leads string) {
	next := map[string]string{}
	for _, r := range records {
		switch r := r.(type) {
		case *dns.CAA:
			set.Zone = clean(r.Hdr.Name)
			set.Records = append(set.Records, Record{Flag: r.Flag, Tag: r.Tag, Value: r.Value})
		case *dns.CNAME:
			next[clean(r.Hdr.Name)] = clean(r.Target)
		}
	}
	leads = name
	for range len(next) {
		to, ok := next[leads]
		if !ok {
			break
		}
		leads = to
	}
	return set, leads
}

func clean(name string) string {
	return strings.TrimSuffix(dns.CanonicalName(name), ".")
}

// printable makes foreign text fit to be shown.
func printable(s string) string {
	if len(s) > 400 {
		s = s[:400] + "…"
	}
	quoted := strconv.QuoteToGraphic(s)
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted[1 : len(quoted)-1])
}
