package iis

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// slot is one binding that a target is for, and what it had at Stage.
type slot struct {
	binding
	Prev  string `json:",omitempty"` // thumb of what http.sys had; empty: nothing
	Store string `json:",omitempty"` // and the store that it lay in
	Made  bool   `json:",omitempty"` // the binding is made by Activate
}

// mine reports that a binding is meant. One without a host name answers for
// whatever arrives, for other people's names too: it is meant only where its site
// is named (Certify The Web's issue 434 tells what happens otherwise).
func (o Options) mine(b binding) bool {
	if len(o.Sites) > 0 && !slices.ContainsFunc(o.Sites, func(s string) bool { return strings.EqualFold(s, b.Site) }) {
		return false
	}
	if len(o.Ports) > 0 && !slices.Contains(o.portWords(), b.Port) {
		return false
	}
	if b.Host == "" {
		return len(o.Sites) > 0
	}
	return slices.ContainsFunc(o.Names, func(name string) bool { return covers(strings.ToLower(name), b.Host) })
}

// covers reports that a name of a certificate is for a binding's host name: the
// same, or a wildcard for one label.
func covers(name, host string) bool {
	base, wild := strings.CutPrefix(name, "*.")
	if _, rest, ok := strings.Cut(host, "."); wild && ok {
		return rest == base
	}
	return name == host
}

// slots are the bindings that are meant, those to be made among them.
func (n node) slots(o Options) ([]slot, error) {
	var all []slot
	for _, b := range n.bindings {
		if !o.mine(b) {
			continue
		}
		s := slot{binding: b}
		if r, ok := n.record(b.at()); ok && r.hash != "" {
			s.Prev, s.Store = r.hash, r.store
		}
		all = append(all, s)
	}
	if !o.Create {
		return all, nil
	}
	if !slices.ContainsFunc(n.sites, func(s string) bool { return strings.EqualFold(s, o.Sites[0]) }) {
		return nil, fmt.Errorf("IIS has no site %q; it has %s", o.Sites[0], strings.Join(n.sites, ", "))
	}
	for _, name := range o.Names {
		for _, port := range o.made() {
			s := slot{binding: binding{Site: o.Sites[0], Info: "*:" + port + ":" + strings.ToLower(name), IP: "*", Port: port, Host: strings.ToLower(name), Flags: flagSNI}, Made: true}
			if slices.ContainsFunc(all, func(b slot) bool { return b.Host == s.Host && b.Port == port }) {
				continue
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// made are the ports of bindings that are made.
func (o Options) made() []string {
	if len(o.Ports) == 0 {
		return []string{"443"}
	}
	return o.portWords()
}

// fit says why the slots cannot be switched without touching what is not meant.
func (n node) fit(o Options, slots []slot) error {
	if len(slots) == 0 {
		return fmt.Errorf("IIS has no HTTPS binding for %s: make it, or give `create: true` and `sites`; a binding without a host name is meant only if `sites` names its site", strings.Join(o.Names, ", "))
	}
	var all []error
	for _, s := range slots {
		if o.Store == Machine && s.Flags&flagCentral != 0 {
			all = append(all, fmt.Errorf("the binding %s takes its certificate from the Centralized Certificate Store: deploy to that, or leave the binding out by sites or ports", s))
			continue
		}
		if r, ok := n.record(s.at()); ok && s.at() != "" && !strings.EqualFold(r.app, appID) {
			all = append(all, fmt.Errorf("http.sys has %s for another program than IIS, %s: it is left alone", r.at, r.app))
		}
		for _, b := range n.bindings {
			if b.at() == s.at() && b.Flags&flagCentral == 0 && !o.mine(b) {
				all = append(all, fmt.Errorf("the binding %s shares %s, and so the certificate, with %s, which is not meant: give both SNI, or name its site in `sites`", s, s.at(), b))
			}
		}
	}
	return errors.Join(all...)
}

// changes are the differences of what http.sys has beside what was meant to differ:
// want has each place's thumb, or "" where nothing is to be. A place that is not in
// want must be as it was; one that is must keep all but the certificate. Ports are
// those where the Centralized Certificate Store may come or go.
func changes(before, after node, want map[string]string, ports []string) []string {
	var all []string
	seen := map[string]bool{}
	for _, r := range slices.Concat(before.records, after.records) {
		if seen[r.at] || slices.ContainsFunc(ports, r.central) {
			continue
		}
		seen[r.at] = true
		if hash, meant := want[r.at]; meant {
			all = append(all, before.unlike(after, r.at, hash)...)
		} else if was, is := before.at(r.at), after.at(r.at); was != is {
			all = append(all, fmt.Sprintf("%s changed from %s to %s", r.at, was, is))
		}
	}
	for at, hash := range want {
		if !seen[at] && hash != "" {
			all = append(all, at+" is not there")
		}
	}
	slices.Sort(all)
	return all
}

// unlike says what is not as it was meant at a place that was to change.
func (n node) unlike(after node, at, hash string) []string {
	was, had := n.record(at)
	is, has := after.record(at)
	switch {
	case is.hash != hash || has != (hash != ""):
		return []string{fmt.Sprintf("%s has %s and not %s", at, is, short(hash))}
	case had && has && (was.rest != is.rest || was.app != is.app):
		return []string{fmt.Sprintf("%s lost settings: it had %q and has %q", at, differing(was.rest, is.rest), differing(is.rest, was.rest))}
	}
	return nil
}

// at is a record, or one of nothing.
func (n node) at(at string) record {
	r, _ := n.record(at)
	return r
}

// differing are the lines of a text that another has not.
func differing(text, other string) string {
	var all []string
	for line := range strings.Lines(text) {
		if !strings.Contains(other, line) {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(all, "; ")
}

// String names a record's certificate.
func (r record) String() string {
	if r.at == "" {
		return "nothing"
	}
	return short(r.hash)
}

func short(hash string) string {
	if hash == "" {
		return "no certificate"
	}
	return strconv.Quote(hash[:8])
}
