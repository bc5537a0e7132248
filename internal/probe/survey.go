package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// An algorithm is the sort of key that TLS 1.2 suites choose between.
type algorithm string

const (
	ecdsaKeys algorithm = "ECDSA"
	rsaKeys   algorithm = "RSA"
)

func algorithmOf(k farm.KeyType) algorithm {
	if strings.HasPrefix(string(k), "rsa") {
		return rsaKeys
	}
	return ecdsaKeys
}

// keyTypeOf is a certificate's key as farm.yaml names it, "ec256" or "rsa2048".
func keyTypeOf(c *x509.Certificate) farm.KeyType {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return farm.KeyType(fmt.Sprintf("ec%d", k.Curve.Params().BitSize))
	case *rsa.PublicKey:
		return farm.KeyType(fmt.Sprintf("rsa%d", k.N.BitLen()))
	}
	return farm.KeyType(strings.ToLower(c.PublicKeyAlgorithm.String()))
}

// only is the wish for leaves of one algorithm: TLS 1.2 with the suites that
// sign with it. In TLS 1.3 a suite says nothing of the key, and Go has no other
// way to choose.
func only(a algorithm) wish {
	var suites []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if strings.HasPrefix(s.Name, "TLS_ECDHE_"+string(a)+"_") {
			suites = append(suites, s.ID)
		}
	}
	return wish{max: tls.VersionTLS12, suites: suites}
}

// A survey is all looks at one endpoint, and what could not be looked at.
type survey struct {
	looks   []look
	notSeen []string
}

// survey asks all that the question wants to know.
func (a *asker) survey(ctx context.Context) (s survey) {
	s.looks = a.series(ctx, wish{}, a.q.Samples)
	plain := s.looks
	if !slices.ContainsFunc(plain, func(l look) bool { return l.proven }) {
		return s
	}
	asked := map[algorithm][]farm.KeyType{}
	for _, k := range a.q.KeyTypes {
		asked[algorithmOf(k)] = append(asked[algorithmOf(k)], k)
	}
	for _, alg := range []algorithm{ecdsaKeys, rsaKeys} {
		if len(asked[alg]) == 0 || count(plain, alg) == a.q.Samples {
			continue
		}
		looks := a.series(ctx, only(alg), a.q.Samples)
		if slices.ContainsFunc(looks, func(l look) bool { return !l.refused }) {
			s.looks = append(s.looks, looks...)
			continue
		}
		if count(plain, alg) == 0 && a.only13(ctx, plain) {
			s.unseen(asked[alg], "the server speaks TLS 1.3 only, in which a sort of key cannot be asked for")
		}
	}
	for _, kinds := range asked {
		s.unseenSizes(kinds)
	}
	slices.Sort(s.notSeen)
	return s
}

func count(looks []look, alg algorithm) (n int) {
	for _, l := range looks {
		if l.proven && algorithmOf(keyTypeOf(l.chain[0])) == alg {
			n++
		}
	}
	return n
}

// only13 tells a server that refused a sort of key because it has none from one
// that does not speak TLS 1.2 at all.
func (a *asker) only13(ctx context.Context, plain []look) bool {
	if !slices.ContainsFunc(plain, func(l look) bool { return l.version == tls.VersionTLS13 }) {
		return false
	}
	return a.look(ctx, wish{max: tls.VersionTLS12}).refused
}

func (s *survey) unseen(kinds []farm.KeyType, why string) {
	for _, k := range kinds {
		s.notSeen = append(s.notSeen, string(k)+": "+why)
	}
}

// unseenSizes excuses leaves of one algorithm and several sizes: a handshake
// shows one of them, and which is the server's choice.
func (s *survey) unseenSizes(kinds []farm.KeyType) {
	var missed []farm.KeyType
	for _, k := range kinds {
		seen := func(l look) bool { return l.proven && keyTypeOf(l.chain[0]) == k }
		if !slices.ContainsFunc(s.looks, seen) {
			missed = append(missed, k)
		}
	}
	if len(missed) < len(kinds) {
		s.unseen(missed, "the server shows a leaf with a key of another size, and TLS cannot ask for a size")
	}
}

// sight sums up the looks.
func (a *asker) sight(s survey) farm.Sight {
	sum := farm.Sight{Endpoint: a.q.Endpoint, Target: a.q.Target, At: a.now, NotSeen: s.notSeen, Trusted: true}
	var failed []error
	shown := map[string]bool{}
	for _, l := range s.looks {
		if l.err != nil {
			failed = append(failed, l.err)
		}
		if l.chain != nil && !shown[farm.Fingerprint(l.chain[0].Raw)] {
			shown[farm.Fingerprint(l.chain[0].Raw)] = true
			sum.Chain = append(sum.Chain, encode(l.chain)...)
		}
		if l.proven {
			a.add(&sum, l.chain)
		}
	}
	sum.Trusted = sum.Trusted && sum.Answered
	switch {
	case len(failed) == len(s.looks):
		sum.Error = failed[0].Error()
		sum.Away = !slices.ContainsFunc(s.looks, func(l look) bool { return !l.away })
	case len(failed) > 0:
		sum.Error = fmt.Sprintf("%d of %d handshakes failed: %v", len(failed), len(s.looks), failed[0])
	}
	var agreed bool
	sum.Samples, agreed = agreement(s.looks)
	if agreed && len(failed) == 0 {
		sum.Confidence = Confidence(sum.Samples)
	}
	return sum
}

// add takes what one proven chain shows into the sum.
func (a *asker) add(sum *farm.Sight, chain []*x509.Certificate) {
	leaf := chain[0]
	sum.Answered = true
	if f := farm.Fingerprint(leaf.Raw); !slices.Contains(sum.Fingerprint, f) {
		sum.Fingerprint = append(sum.Fingerprint, f)
	}
	sum.Names = append(sum.Names, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		sum.Names = append(sum.Names, ip.String())
	}
	slices.Sort(sum.Names)
	sum.Names = slices.Compact(sum.Names)
	if sum.NotAfter.IsZero() || leaf.NotAfter.Before(sum.NotAfter) {
		sum.NotAfter = leaf.NotAfter
	}
	names := a.q.Names
	if len(names) == 0 && a.q.Endpoint.SNI != "" {
		names = []string{a.q.Endpoint.SNI}
	}
	if why := a.distrust(chain, names); why != "" && sum.Trusted {
		sum.Trusted, sum.Distrust = false, why
	}
}

// agreement counts the handshakes behind the leaf that was confirmed least, and
// says whether each algorithm showed one leaf only.
func agreement(looks []look) (samples int, agreed bool) {
	tally := map[algorithm]map[string]int{}
	for _, l := range looks {
		if !l.proven {
			continue
		}
		alg := algorithmOf(keyTypeOf(l.chain[0]))
		if tally[alg] == nil {
			tally[alg] = map[string]int{}
		}
		tally[alg][farm.Fingerprint(l.chain[0].Raw)]++
	}
	agreed = len(tally) > 0
	for _, leaves := range tally {
		most := 0
		for _, n := range leaves {
			most = max(most, n)
		}
		if samples == 0 || most < samples {
			samples = most
		}
		agreed = agreed && len(leaves) == 1
	}
	return samples, agreed
}

// Confidence is what k handshakes that agree say about workers that were not
// seen. How many there are is unknown. Were half of the connections or more
// given to workers with another leaf, k samples would all miss them with a
// chance of at most 0.5^k; so 1 - 0.5^k is the confidence that fewer than half
// are. One stale worker of many hides better than that, which is why a sight
// never says 1 and is looked at again during the soak.
func Confidence(k int) float64 {
	if k < 1 {
		return 0
	}
	return 1 - math.Pow(0.5, float64(min(k, 50))) // beyond 50 a float64 would round to 1
}

func encode(chain []*x509.Certificate) (text []byte) {
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}
