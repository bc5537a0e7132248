package probe

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Silent reports that none of the endpoints serves anyone: not one completed a
// handshake or showed a certificate. Without sights it is false, since nobody
// was asked.
func Silent(sights []farm.Sight) bool {
	for _, s := range sights {
		if s.Answered || len(s.Chain) > 0 {
			return false
		}
	}
	return len(sights) > 0
}

// Present leaves out the sights of endpoints that are away, if these are at most so
// many and one endpoint is not. Who takes a connection and shows nothing is never left
// out: a server that cannot read its certificate does that.
func Present(sights []farm.Sight, away farm.Share) []farm.Sight {
	present := slices.DeleteFunc(slices.Clone(sights), func(s farm.Sight) bool { return s.Away })
	if gone := len(sights) - len(present); gone > away.Of(len(sights)) || len(present) == 0 {
		return sights
	}
	return present
}

// Judge holds a sight against the leaves that are wanted at its endpoint.
//
//	all of the wanted leaves, trusted, and nothing else   ok
//	the wanted leaves, but clients refuse them            version fault
//	another leaf, one missing, samples that fail, silence node fault: not, or not yet
//
// A leaf that could not be asked for (NotSeen) is not held against the endpoint
// as long as another one was seen. While workers disagree it is a node fault,
// even if what they serve is not trusted: the leaf to blame may be the old one.
func Judge(want []farm.Leaf, s farm.Sight, now time.Time) (ok bool, fault farm.Fault, why string) {
	at := s.Endpoint.Address
	switch {
	case len(want) == 0:
		return false, farm.NodeFault, "no leaf is wanted at " + at
	case !s.Answered:
		return false, farm.NodeFault, fmt.Sprintf("%s serves nothing: %s", at, s.Error)
	}
	for _, f := range s.Fingerprint {
		if !among(want, f) {
			return false, farm.NodeFault, fmt.Sprintf("%s serves %s%s, not %s", at, farm.Short(f), workers(s), shorts(want))
		}
	}
	if l, missing := missingLeaf(want, s); missing {
		return false, farm.NodeFault, fmt.Sprintf("%s does not serve the %s leaf %s", at, l.KeyType, farm.Short(l.Fingerprint))
	}
	if s.Error != "" {
		return false, farm.NodeFault, at + ": " + s.Error
	}
	for _, l := range want {
		switch {
		case now.After(l.NotAfter):
			return false, farm.VersionFault, fmt.Sprintf("leaf %s expired at %s", farm.Short(l.Fingerprint), l.NotAfter.UTC().Format(time.RFC3339))
		case now.Before(l.NotBefore):
			return false, farm.VersionFault, fmt.Sprintf("leaf %s is not valid before %s", farm.Short(l.Fingerprint), l.NotBefore.UTC().Format(time.RFC3339))
		}
	}
	if !s.Trusted {
		return false, farm.VersionFault, fmt.Sprintf("%s serves %s, but untrusted: %s", at, shorts(want), s.Distrust)
	}
	return true, farm.NoFault, ""
}

// missingLeaf finds a leaf that was neither seen nor excused. When all are
// excused nothing was seen, and the first is missing.
func missingLeaf(want []farm.Leaf, s farm.Sight) (farm.Leaf, bool) {
	for _, l := range want {
		if slices.Contains(s.Fingerprint, l.Fingerprint) {
			continue
		}
		excused := slices.ContainsFunc(s.NotSeen, func(n string) bool {
			return strings.HasPrefix(n, string(l.KeyType)+": ")
		})
		if !excused || len(s.Fingerprint) == 0 {
			return l, true
		}
	}
	return farm.Leaf{}, false
}

func workers(s farm.Sight) string {
	if len(s.Fingerprint) > 1 && s.Confidence == 0 {
		return " on some of its workers"
	}
	return ""
}

func shorts(leaves []farm.Leaf) string {
	var all []string
	for _, l := range leaves {
		all = append(all, farm.Short(l.Fingerprint))
	}
	return strings.Join(all, " and ")
}

// Drifted says what is wrong with what a target's endpoints serve, in words; ""
// when each serves what is desired. It is ours to heal when nothing of value is
// there: one of our older versions, an expired, untrusted, self-signed or
// missing certificate. A valid certificate that is not ours, seen at any of the
// endpoints, is reported only: it may be a person's night fix. What cannot be
// told for sure is reported too.
//
// An endpoint that is down looks like one that lost its certificate: ask Silent,
// and heal only where the node can be reached. A desired leaf that has expired
// is no drift: a new certificate is due.
func Drifted(desired, older []farm.Leaf, sights []farm.Sight, now time.Time) (what string, ours bool) {
	ours = true
	for _, s := range sights {
		w, mine := drift(desired, older, s, now)
		if w != "" && (what == "" || ours && !mine) {
			what, ours = w, mine
		}
	}
	return what, ours
}

func drift(desired, older []farm.Leaf, s farm.Sight, now time.Time) (what string, ours bool) {
	at := s.Endpoint.Address
	if !s.Answered {
		return fmt.Sprintf("%s serves nothing: %s", at, s.Error), true
	}
	if what, ours := strangers(slices.Concat(desired, older), s, now); what != "" {
		return fmt.Sprintf("%s serves %s", at, what), ours
	}
	if slices.ContainsFunc(s.Fingerprint, func(f string) bool { return !among(desired, f) }) {
		return at + " serves one of our older versions" + workers(s), true
	}
	l, missing := missingLeaf(desired, s)
	expired := slices.ContainsFunc(desired, func(l farm.Leaf) bool { return now.After(l.NotAfter) })
	switch {
	case len(desired) > 0 && missing:
		return fmt.Sprintf("%s does not serve the %s leaf %s", at, l.KeyType, farm.Short(l.Fingerprint)), true
	case !s.Trusted && !expired:
		return fmt.Sprintf("%s serves the right leaf, but untrusted: %s", at, s.Distrust), true
	}
	return "", true
}

func among(leaves []farm.Leaf, fingerprint string) bool {
	return slices.ContainsFunc(leaves, func(l farm.Leaf) bool { return l.Fingerprint == fingerprint })
}

// strangers names a leaf that was never ours; one that must be left alone before
// one that need not be.
func strangers(known []farm.Leaf, s farm.Sight, now time.Time) (what string, ours bool) {
	ours = true
	for _, f := range s.Fingerprint {
		if among(known, f) {
			continue
		}
		w, mine := foreign(f, s, now)
		if what == "" || ours && !mine {
			what, ours = w, mine
		}
	}
	return what, ours
}

// foreign judges a leaf that was never ours.
func foreign(fingerprint string, s farm.Sight, now time.Time) (what string, ours bool) {
	short := farm.Short(fingerprint)
	leaf := find(fingerprint, s.Chain)
	switch {
	case leaf == nil:
		return fmt.Sprintf("%s, which is not ours", short), false
	case now.After(leaf.NotAfter):
		return fmt.Sprintf("%s, which is not ours and expired at %s", short, leaf.NotAfter.UTC().Format(time.RFC3339)), true
	case bytes.Equal(leaf.RawSubject, leaf.RawIssuer):
		return fmt.Sprintf("%s, a self-signed placeholder", short), true
	case !s.Trusted && len(s.Fingerprint) == 1:
		return fmt.Sprintf("%s, which is not ours and not trusted: %s", short, s.Distrust), true
	}
	return fmt.Sprintf("%s, a certificate of %q that is not ours", short, leaf.Issuer), false
}

// find is the certificate with the fingerprint in a PEM text, or nil.
func find(fingerprint string, text []byte) *x509.Certificate {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if farm.Fingerprint(block.Bytes) == fingerprint {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil
			}
			return c
		}
	}
	return nil
}
