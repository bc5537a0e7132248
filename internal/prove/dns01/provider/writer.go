package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// A legoWriter writes through a hoster's API, in a helper process for each call.
// Where the API forgets, one helper stays for as long as it holds records, and
// only it can remove them.
type legoWriter struct {
	entry  entry
	house  *house
	start  starter
	ask    request // settings filled in
	stay   string  // which helper that stays is ours
	lookup lookup.Client
	hide   *strings.Replacer
}

func newLegoWriter(e entry, h *house, s dns01.Setup) (*legoWriter, error) {
	if len(s.Helper) == 0 {
		return nil, errNoHelper
	}
	given, err := values(s.Options)
	if err != nil {
		return nil, err
	}
	var secrets []string
	for name, secret := range s.Secrets {
		given[name] = string(secret.Reveal())
		secrets = append(secrets, given[name])
	}
	w := &legoWriter{
		entry:  e,
		house:  h,
		start:  starter{argv: s.Helper, env: helperEnv(s.Proxy)},
		ask:    request{Provider: e.Name, Settings: given},
		lookup: s.Lookup,
		hide:   hiding(secrets, slices.Collect(maps.Values(given))),
	}
	if w.stay, err = digest(w.ask, w.start.argv, w.start.env); err != nil {
		return nil, err
	}
	return w, nil
}

// Put adds the value; see dns01.Writer.
func (w *legoWriter) Put(ctx context.Context, r dns01.Record) error {
	r, err := w.ready(r)
	if err != nil {
		return err
	}
	leave, err := w.enter(ctx, r)
	if err != nil {
		return err
	}
	defer leave()
	if w.entry.forgets() {
		err = w.putHeld(ctx, r)
	} else {
		err = w.once(ctx, put, r)
	}
	if err == nil || w.shows(ctx, r, true) { // some APIs refuse what is there already
		return nil
	}
	return w.failed("put TXT value "+r.Value+" at "+r.Name, err)
}

// Remove takes the value away; see dns01.Writer.
func (w *legoWriter) Remove(ctx context.Context, r dns01.Record) error {
	r, err := w.ready(r)
	if err != nil {
		return err
	}
	leave, err := w.enter(ctx, r)
	if err != nil {
		return err
	}
	defer leave()
	if w.entry.forgets() {
		err = w.removeHeld(ctx, r)
	} else {
		err = w.once(ctx, remove, r)
	}
	// Some APIs refuse to remove what is not there. That is only believed if DNS
	// says the same: a record may be there and not yet be seen.
	if err == nil || notThere.MatchString(err.Error()) && w.shows(ctx, r, false) {
		return nil
	}
	return w.failed("remove TXT value "+r.Value+" from "+r.Name, err)
}

// notThere is how APIs and lego's clients tell that there is no such record.
var notThere = regexp.MustCompile(`(?i)not found|no (existing|matching)|does ?n[o']t exist|unknown record|could not find (the )?(txt )?record|\b404\b`)

// ready checks that lego, which makes the value itself, will make this one.
func (w *legoWriter) ready(r dns01.Record) (dns01.Record, error) {
	sum := sha256.Sum256([]byte(r.KeyAuth))
	if base64.RawURLEncoding.EncodeToString(sum[:]) != r.Value {
		return r, fmt.Errorf("%s: the TXT value at %s is not the digest of its key authorization: such a value can only be written by rfc2136, exec or builtin",
			w.entry.Name, r.Name)
	}
	r.Zone, r.Name = strings.TrimSuffix(r.Zone, "."), strings.TrimSuffix(r.Name, ".")
	if r.Zone == "" || !dns.IsSubDomain(r.Zone, r.Name) {
		return r, fmt.Errorf("%s: the name %s is not in the zone %q", w.entry.Name, r.Name, r.Zone)
	}
	return r, nil
}

// enter waits until no other call is at the name: many APIs know only the whole
// set of a name's values, which is read, changed and written back.
func (w *legoWriter) enter(ctx context.Context, r dns01.Record) (leave func(), err error) {
	switch {
	case w.entry.forgets():
		return w.house.enter(ctx, w.stay) // one helper, which takes one request after another
	case w.entry.Sequential:
		return w.house.enter(ctx, w.entry.Name+" "+r.Zone)
	}
	return w.house.enter(ctx, w.entry.Name+" "+r.Name)
}

// once has a new helper do one thing.
func (w *legoWriter) once(ctx context.Context, act action, r dns01.Record) error {
	h, err := w.start.run(ctx)
	if err != nil {
		return err
	}
	defer h.end()
	return h.ask(ctx, w.request(act, r))
}

func (w *legoWriter) request(act action, r dns01.Record) request {
	q := w.ask
	q.Action, q.Record = act, r
	return q
}

// shows reports whether DNS says clearly that the value is there, or is not.
func (w *legoWriter) shows(ctx context.Context, r dns01.Record, there bool) bool {
	a, err := w.lookup.Ask(ctx, lookup.Question{Name: r.Name, Type: dns.TypeTXT})
	if err != nil {
		return false
	}
	found := slices.ContainsFunc(a.Records, func(rr dns.RR) bool {
		txt, ok := rr.(*dns.TXT)
		return ok && strings.Join(txt.Txt, "") == r.Value
	})
	return found == there
}

// failed is an error for people: what was tried, and why it did not work, without
// a trace of any credential.
func (w *legoWriter) failed(what string, err error) error {
	text := tidy(w.hide.Replace(err.Error()))
	if errors.Is(err, dns01.Left) {
		return fmt.Errorf("%s: %s: %w", w.entry.Name, what, &left{text})
	}
	if end := cause(err); end != nil {
		return fmt.Errorf("%s: %s: %s: %w", w.entry.Name, what, text, end)
	}
	return fmt.Errorf("%s: %s: %s", w.entry.Name, what, text)
}

// cause is how the caller's context ended, if that was it.
func cause(err error) error {
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			return end
		}
	}
	return nil
}

// left is a cleaned text that still is dns01.Left.
type left struct{ text string }

// Error is the cleaned text.
func (l *left) Error() string { return l.text }

// Unwrap is what the text is about.
func (l *left) Unwrap() error { return dns01.Left }
