// Package renew decides when a certificate is due, and says why. It is pure:
// the same facts and the same time give the same verdict in every process.
//
// Each rule says from when on a certificate is due by it; the certificate is
// due once any of these times has come. So a certificate that is due stays due
// until a fact changes, and the time to look again is the earliest of those
// that lie ahead: nothing has to scan all certificates, and no moment is missed.
package renew

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Facts is what is known of one site's certificate.
type Facts struct {
	Site    string          // seeds the jitter
	Want    Want            // what farm.yaml says
	Have    farm.Version    // the newest version; the zero value: none
	Suggest farm.Suggestion // what the CA said; used only if it is for a leaf of Have
	Asked   string          // why a person wants it renewed now; empty: nobody does
	Replace string          // why it is replaced with many others; empty: it is not
	From    time.Time       // from when on Replace counts
	Course  Course          // how a new version is brought out; zero: at once
}

// Want is what a version must have been issued for.
type Want struct {
	Names    []string
	KeyTypes []farm.KeyType
	Issuer   string
	Others   []string // issuers that may stand in for it
	Profile  string   // at the issuer that Have came from, if that is one of them
}

// A Verdict is whether a certificate is due, and when to look again.
type Verdict struct {
	Due   bool
	Why   string    // for people
	Again time.Time // when to look again, if it is not due
	// Ask says that the CA is to be asked for renewal information first.
	Ask bool
	// LastSafe is the last moment at which an order may begin and the new version
	// still be everywhere before the old one expires, with all that may go wrong
	// on the way. Nothing may hold an order back after it. Zero: there is no
	// version that could expire.
	LastSafe time.Time
}

// PastSafe reports that nothing may hold the order back any more.
func (v Verdict) PastSafe(now time.Time) bool {
	return !v.LastSafe.IsZero() && !now.Before(v.LastSafe)
}

// lookLatest is the longest time between two looks: a mistake in a stored time
// then costs a day at most.
const lookLatest = 24 * time.Hour

// Due says whether the certificate is due at the given time.
func Due(f Facts, now time.Time) Verdict {
	v := Verdict{Why: "it is not time", Again: now.Add(lookLatest), Ask: ask(f, now), LastSafe: LastSafe(f.Have, f.Course)}
	for _, rule := range rules() {
		from, why := rule(f)
		if from.IsZero() {
			continue
		}
		if !now.Before(from) {
			v.Due, v.Why, v.Again = true, why, time.Time{}
			return v
		}
		v.Again = earlier(v.Again, from)
	}
	if at := f.Suggest.Ask; at.After(now) && suggested(f) {
		v.Again = earlier(v.Again, at)
	}
	return v
}

// A rule says from when on a certificate is due by it, and why; the zero time:
// never.
type rule func(Facts) (from time.Time, why string)

// rules are asked in order; the first that is due gives the reason.
func rules() []rule {
	return []rule{none, bad, changed, asked, expired, replaced, suggestion, backstop}
}

// always is a time that has come.
func always() time.Time { return time.Unix(0, 0) }

func none(f Facts) (time.Time, string) {
	if len(f.Have.Leaves) > 0 {
		return time.Time{}, ""
	}
	return always(), "there is no certificate yet"
}

func bad(f Facts) (time.Time, string) {
	if f.Have.State == farm.VersionGood {
		return time.Time{}, ""
	}
	why := "the version is " + string(f.Have.State)
	if f.Have.Reason != "" {
		why += ": " + f.Have.Reason
	}
	return always(), why
}

// changed compares what farm.yaml asks for with what it asked for when the version
// came: one that was imported will do, whatever it is, until farm.yaml asks for
// something else.
func changed(f Facts) (time.Time, string) {
	was, want := askedFor(f.Have, f.Want), f.Want
	switch added, gone := differ(lower(f.Have.Names), lower(want.Names)); {
	case len(added)+len(gone) > 0:
		return always(), "the names changed" + list("new", added) + list("gone", gone)
	case !same(was.KeyTypes, want.KeyTypes):
		return always(), fmt.Sprintf("the key types changed from %v to %v", was.KeyTypes, want.KeyTypes)
	case was.Issuer != "" && was.Issuer != want.Issuer && !slices.Contains(want.Others, was.Issuer):
		return always(), fmt.Sprintf("the issuer changed from %s to %s", was.Issuer, want.Issuer)
	case was.Profile != "" && was.Profile != want.Profile:
		return always(), fmt.Sprintf("the profile changed from %s to %q", was.Profile, want.Profile)
	}
	return time.Time{}, ""
}

// Fits reports that a version is what is asked for, or was when it came.
func Fits(have farm.Version, want Want) bool {
	from, _ := changed(Facts{Have: have, Want: want})
	return from.IsZero()
}

// askedFor is what farm.yaml asked for when the version came. Where that is not
// known of an imported one, it is what farm.yaml asks for now.
func askedFor(have farm.Version, want Want) farm.Wanted {
	switch {
	case have.StandsFor != nil:
		return *have.StandsFor
	case have.Issuer == "":
		return farm.Wanted{KeyTypes: want.KeyTypes}
	}
	was := farm.Wanted{Issuer: have.Issuer, Profile: have.Profile}
	for _, l := range have.Leaves {
		was.KeyTypes = append(was.KeyTypes, l.KeyType)
	}
	return was
}

func asked(f Facts) (time.Time, string) {
	if f.Asked == "" {
		return time.Time{}, ""
	}
	return always(), f.Asked
}

// replaced is a mass replacement, which begins with some and goes on with others.
func replaced(f Facts) (time.Time, string) {
	if f.Replace == "" {
		return time.Time{}, ""
	}
	return f.From, f.Replace
}

func expired(f Facts) (time.Time, string) {
	return f.Have.NotAfter(), "it expired at " + f.Have.NotAfter().UTC().Format(time.RFC3339)
}

// suggestion is the CA's own wish (RFC 9773 §4.2).
func suggestion(f Facts) (time.Time, string) {
	if !suggested(f) {
		return time.Time{}, ""
	}
	why := "the CA suggests it"
	if f.Suggest.Explanation != "" {
		why += ", see " + f.Suggest.Explanation
	}
	return f.Suggest.Chosen, why
}

// short is a lifetime below which half of it must be left instead of a third
// (Let's Encrypt's integration guide).
const short = 10 * 24 * time.Hour

// backstop does not depend on the CA's suggestion. Where there is one it waits a
// little longer, so that it only catches a suggestion that comes too late: CAs
// exempt renewals within their window from limits, and spread them themselves.
// Where there is none, up to an eighth of the lifetime of jitter, always the same
// for a site, spreads the certificates of a farm that began on one day.
func backstop(f Facts) (time.Time, string) {
	life := f.Have.NotAfter().Sub(f.Have.NotBefore())
	left, words := left(life)
	if suggested(f) && !f.Suggest.Chosen.IsZero() {
		return f.Have.NotAfter().Add(-left * 3 / 4), "the CA's suggestion comes too late: less than " + words + " of its life is left"
	}
	return f.Have.NotAfter().Add(-Before(f.Site, life)), "about " + words + " of its life is left"
}

// left is what of a lifetime is left when a certificate becomes due.
func left(life time.Duration) (left time.Duration, words string) {
	if life < short {
		return life / 2, "half"
	}
	return life / 3, "a third"
}

// Before is how long before its end a site's certificate becomes due where the CA
// suggests nothing, with the site's jitter.
func Before(site string, life time.Duration) time.Duration {
	least, _ := left(life)
	return least + time.Duration(float64(life)/8*seed(site))
}

// LastSafe is the last moment at which an order may begin and the new version still
// be everywhere before the old one expires: when the last twelfth of the lifetime
// begins, or the last hour if that is longer (but never more than half the
// lifetime), or what the site's own course needs if that is longer (but not before
// the certificate is due). A twelfth of 90 days is a week: an order that is retried
// after 1, 10 and 100 minutes and then daily, a maintenance window that comes every
// few days, and the soak of each wave fit into it. A twelfth is also where windows
// and approvals give way.
func LastSafe(v farm.Version, c Course) time.Time {
	if len(v.Leaves) == 0 {
		return time.Time{}
	}
	life := v.NotAfter().Sub(v.NotBefore())
	due, _ := left(life)
	margin := min(max(life/12, time.Hour), life/2)
	return v.NotAfter().Add(-max(margin, min(c.Need(life).Sum(), due)))
}

// ask follows RFC 9773 §4.3: right after issuance, then when the CA said, and
// no more after the end of the certificate.
func ask(f Facts, now time.Time) bool {
	if len(f.Have.Leaves) == 0 || !now.Before(f.Have.NotAfter()) {
		return false
	}
	return !suggested(f) || !now.Before(f.Suggest.Ask)
}

// suggested reports that the suggestion is for the newest version.
func suggested(f Facts) bool {
	return f.Suggest.Leaf != "" && slices.Contains(f.Have.Fingerprints(), f.Suggest.Leaf)
}

// seed is a number from 0 to 1 that is always the same for a site.
func seed(site string) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(site)) // never fails
	// FNV changes its high bits little for names that differ at the end.
	mixed := h.Sum64()
	mixed ^= mixed >> 33
	mixed *= 0xff51afd7ed558ccd
	mixed ^= mixed >> 33
	return float64(mixed>>11) / (1 << 53)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func lower(names []string) []string {
	var all []string
	for _, n := range names {
		all = append(all, strings.ToLower(n))
	}
	return all
}

func differ(have, want []string) (added, gone []string) {
	for _, n := range want {
		if !slices.Contains(have, n) {
			added = append(added, n)
		}
	}
	for _, n := range have {
		if !slices.Contains(want, n) {
			gone = append(gone, n)
		}
	}
	return added, gone
}

func list(word string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; " + word + ": " + strings.Join(names, ", ")
}

func same(have, want []farm.KeyType) bool {
	a, b := slices.Clone(have), slices.Clone(want)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
