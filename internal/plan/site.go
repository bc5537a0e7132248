package plan

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// A differ compares sites; it knows what concerns more than one.
type differ struct {
	moved map[string]bool   // issuers that are at another CA now
	held  map[string]string // who has a physical place now
}

// site compares one site with what it was.
func (d differ) site(old, now *farm.Site) []Change {
	switch {
	case old == nil:
		return []Change{{
			Do: Issue, Name: now.Name, Targets: targetNames(now), Certificate: true,
			Why: "the site is new", Fields: differences(nil, certificate(now, list(now.Issuers()))),
		}}
	case now == nil:
		c := d.gone(old.Name, old.Targets, "the site is gone: its certificate is not renewed any more, and its targets keep what they have until `retire`")
		if len(c) == 0 {
			c = []Change{{Do: Release, Name: old.Name, Why: "the site is gone; it has no targets"}}
		}
		return inOrder(c)
	case !d.moved[now.Issuer] && reflect.DeepEqual(old, now):
		return nil // nearly all sites of a large farm; saying each of them in words takes twenty times as long
	}
	all := d.certificate(old, now)
	all = append(all, turns(old, now)...)
	all = append(all, d.targets(old, now)...)
	all = append(all, counts(old, now)...)
	return inOrder(all)
}

// counts is what nothing is done about: it counts from now on.
func counts(old, now *farm.Site) (all []Change) {
	if f := differences(append(policy(old.Policy), place(old)...), append(policy(now.Policy), place(now)...)); len(f) > 0 {
		all = append(all, Change{Do: Policy, Name: now.Name, Why: "the next rollout goes by another policy", Fields: f})
	}
	if f := differences(rest(old), rest(now)); len(f) > 0 {
		all = append(all, Change{Do: Site, Name: now.Name, Why: "nothing is installed for this; it counts from now on", Fields: f})
	}
	return all
}

// certificate tells whether the site needs another certificate, and why.
func (d differ) certificate(old, now *farm.Site) []Change {
	was, is := list(old.Issuers()), list(now.Issuers())
	if slices.Contains(now.Issuers(), old.Issuer) {
		was, is = "", "" // who else is asked, and in which order, counts from the next renewal
	}
	fields := slices.DeleteFunc(differences(certificate(old, was), certificate(now, is)), func(f Field) bool { return f.Name == "strategy" })
	var words []string
	for _, f := range fields {
		words = append(words, f.Name)
	}
	why := "its certificate changes: " + strings.Join(words, ", ")
	if old.Issuer == now.Issuer && d.moved[now.Issuer] {
		why = "its issuer " + now.Issuer + " is another CA now"
	} else if len(fields) == 0 {
		return nil
	}
	return []Change{{
		Do: Issue, Name: now.Name, Targets: targetNames(now), Certificate: true, Why: why, Fields: fields,
	}}
}

// turns tells that other issuers are asked, or in another order, from the next renewal
// on.
func turns(old, now *farm.Site) []Change {
	if slices.Equal(old.Issuers(), now.Issuers()) || !slices.Contains(now.Issuers(), old.Issuer) {
		return nil
	}
	why := "the issuers are asked in this order from the next renewal on"
	var gone []string
	for _, i := range old.Fallbacks {
		if !slices.Contains(now.Issuers(), i) {
			gone = append(gone, i)
		}
	}
	if len(gone) > 0 {
		why += "; a certificate from " + strings.Join(gone, ", ") + " is replaced now"
	}
	return []Change{{Do: Site, Name: now.Name, Why: why, Fields: []Field{{"issuers", list(old.Issuers()), list(now.Issuers())}}}}
}

// targets compares a site's targets one by one and puts those together that
// change in the same way: one line for a hundred nodes, not a hundred.
func (d differ) targets(old, now *farm.Site) []Change {
	var added []string
	var gone []farm.Target
	alike := map[string]*Change{}
	eachPair(old.Targets, now.Targets, func(t farm.Target) string { return t.Name }, func(name string, was, is *farm.Target) {
		switch {
		case was == nil:
			added = append(added, name)
			return
		case is == nil:
			gone = append(gone, *was)
			return
		}
		same(alike, RollOut, now.Name, name, "it is installed in another way or place; what lies at an old place stays there",
			differences(installed(was), installed(is)))
		same(alike, Policy, now.Name, name, "from now on it is changed at another pace", differences(pace(was), pace(is)))
		same(alike, Watch, now.Name, name, "it is looked at elsewhere", differences(seen(was), seen(is)))
	})
	var all []Change
	if len(added) > 0 {
		all = append(all, Change{Do: RollOut, Name: now.Name, Targets: added, Why: farm.Count(len(added), "target") + " more"})
	}
	for _, c := range alike {
		all = append(all, *c)
	}
	return append(all, d.gone(now.Name, gone, "gone from farm.yaml: left alone and listed until `retire`")...)
}

// same adds a target to the change that does the same with others.
func same(alike map[string]*Change, do Do, site, target, why string, fields []Field) {
	if len(fields) == 0 {
		return
	}
	key := fmt.Sprintf("%s %q", do, fields)
	if alike[key] == nil {
		alike[key] = &Change{Do: do, Name: site, Why: why, Fields: fields}
	}
	alike[key].Targets = append(alike[key].Targets, target)
}

// gone releases targets, but for those whose place another target has now: there
// is nothing left of them to list.
func (d differ) gone(site string, targets []farm.Target, why string) []Change {
	var left, taken []string
	heirs := map[string]bool{}
	for _, t := range targets {
		if heir := d.held[t.Identity]; heir != "" && t.Identity != "" {
			taken = append(taken, t.Name)
			heirs[heir] = true
			continue
		}
		left = append(left, t.Name)
	}
	slices.Sort(left)
	slices.Sort(taken)
	var all []Change
	if len(left) > 0 {
		all = append(all, Change{Do: Release, Name: site, Targets: left, Why: why})
	}
	if len(taken) > 0 {
		all = append(all, Change{Do: Forget, Name: site, Targets: taken, Why: "their places belong to " + few(heirs) + " now"})
	}
	return all
}

// few names some of many.
func few(names map[string]bool) string {
	const most = 3
	var all []string
	for n := range names {
		all = append(all, n)
	}
	slices.Sort(all)
	if more := len(all) - most; more > 0 {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(all, ", ")
}
