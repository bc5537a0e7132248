package probe

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

func chainOf(certs ...tls.Certificate) (text []byte) {
	for _, c := range certs {
		for _, der := range c.Certificate {
			parsed, err := x509.ParseCertificate(der)
			if err != nil {
				panic(err)
			}
			text = append(text, encode([]*x509.Certificate{parsed})...)
		}
	}
	return text
}

func sightOf(trusted bool, certs ...tls.Certificate) farm.Sight {
	s := farm.Sight{
		Endpoint: farm.Endpoint{Address: "web-1:443"}, Answered: true, Trusted: trusted,
		Chain: chainOf(certs...), Samples: 1, Confidence: 0.5,
	}
	for _, c := range certs {
		s.Fingerprint = append(s.Fingerprint, fingerprint(c))
	}
	if !trusted {
		s.Distrust = "for a reason"
	}
	return s
}

func with(s farm.Sight, change func(*farm.Sight)) farm.Sight {
	change(&s)
	return s
}

func TestJudge(t *testing.T) {
	ca := newAuthority(t, "A")
	ec, rs, old := ca.leaf(t, ecKey(t)), ca.leaf(t, rsaKey()), ca.leaf(t, ecKey(t))
	both := []farm.Leaf{leafOf(ec), leafOf(rs)}
	noRSA := func(s *farm.Sight) { s.NotSeen = []string{"rsa2048: cannot be asked for"} }
	for name, c := range map[string]struct {
		want  []farm.Leaf
		sight farm.Sight
		now   time.Time
		fault farm.Fault // NoFault: ok
		why   string
	}{
		"all there":             {both, sightOf(true, ec, rs), noon, farm.NoFault, ""},
		"one excused":           {both, with(sightOf(true, ec), noRSA), noon, farm.NoFault, ""},
		"nothing wanted":        {nil, sightOf(true, ec), noon, farm.NodeFault, "no leaf is wanted"},
		"silent":                {both, farm.Sight{Error: "refused"}, noon, farm.NodeFault, "serves nothing: refused"},
		"another":               {both[:1], sightOf(true, old), noon, farm.NodeFault, "serves " + farm.Short(fingerprint(old))},
		"another, untrusted":    {both[:1], sightOf(false, old), noon, farm.NodeFault, "serves"},
		"one too many":          {both[:1], sightOf(false, ec, old), noon, farm.NodeFault, "serves"},
		"one missing":           {both, sightOf(true, ec), noon, farm.NodeFault, "does not serve the rsa2048 leaf"},
		"wrong one excused":     {both, with(sightOf(true, rs), noRSA), noon, farm.NodeFault, "does not serve the ec256 leaf"},
		"excused, nothing seen": {both[1:], with(sightOf(true), noRSA), noon, farm.NodeFault, "does not serve"},
		"some samples failed":   {both, with(sightOf(true, ec, rs), func(s *farm.Sight) { s.Error = "1 of 3" }), noon, farm.NodeFault, "1 of 3"},
		"untrusted":             {both, sightOf(false, ec, rs), noon, farm.VersionFault, "for a reason"},
		"expired since":         {both, sightOf(true, ec, rs), noon.AddDate(1, 0, 0), farm.VersionFault, "expired"},
		"not yet valid":         {both, sightOf(true, ec, rs), noon.AddDate(-1, 0, 0), farm.VersionFault, "not valid before"},
	} {
		t.Run(name, func(t *testing.T) {
			ok, fault, why := Judge(c.want, c.sight, c.now)
			if ok != (c.fault == farm.NoFault) || fault != c.fault || !strings.Contains(why, c.why) || ok != (why == "") {
				t.Errorf("got %v %q %q", ok, fault, why)
			}
		})
	}
}

func TestDrifted(t *testing.T) {
	ca := newAuthority(t, "A")
	ec, rs, old, fix := ca.leaf(t, ecKey(t)), ca.leaf(t, rsaKey()), ca.leaf(t, ecKey(t)), ca.leaf(t, ecKey(t))
	expired := ca.leaf(t, ecKey(t), func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = noon.Add(-2*time.Hour), noon.Add(-time.Hour)
	})
	desired, older := []farm.Leaf{leafOf(ec), leafOf(rs)}, []farm.Leaf{leafOf(old)}
	right := sightOf(true, ec, rs)
	for name, c := range map[string]struct {
		sights []farm.Sight
		now    time.Time
		what   string // "" is no drift
		ours   bool
	}{
		"as desired":               {[]farm.Sight{right, right}, noon, "", true},
		"no sights":                {nil, noon, "", true},
		"desired, but expired":     {[]farm.Sight{sightOf(false, ec, rs)}, noon.AddDate(1, 0, 0), "", true},
		"desired, but broken":      {[]farm.Sight{sightOf(false, ec, rs)}, noon, "untrusted: for a reason", true},
		"an older version":         {[]farm.Sight{right, sightOf(true, old)}, noon, "older version", true},
		"older on some workers":    {[]farm.Sight{with(sightOf(true, old, ec), func(s *farm.Sight) { s.Confidence = 0 })}, noon, "older versions on some", true},
		"expired foreign one":      {[]farm.Sight{sightOf(false, expired)}, noon, "expired", true},
		"placeholder":              {[]farm.Sight{sightOf(false, selfSigned(t))}, noon, "self-signed placeholder", true},
		"untrusted foreign one":    {[]farm.Sight{sightOf(false, fix)}, noon, "not trusted: for a reason", true},
		"one missing":              {[]farm.Sight{sightOf(true, ec)}, noon, "does not serve the rsa2048", true},
		"nothing":                  {[]farm.Sight{{Error: "reset"}}, noon, "serves nothing: reset", true},
		"valid foreign one":        {[]farm.Sight{sightOf(true, fix)}, noon, "that is not ours", false},
		"foreign after older":      {[]farm.Sight{sightOf(true, old), sightOf(true, fix)}, noon, "that is not ours", false},
		"foreign before older":     {[]farm.Sight{sightOf(true, fix), sightOf(true, old)}, noon, "that is not ours", false},
		"foreign beside expired":   {[]farm.Sight{sightOf(false, expired, fix)}, noon, "that is not ours", false},
		"cannot tell who is wrong": {[]farm.Sight{sightOf(false, old, fix)}, noon, "that is not ours", false},
		"foreign, chain not kept":  {[]farm.Sight{with(sightOf(true, fix), func(s *farm.Sight) { s.Chain = nil })}, noon, "not ours", false},
	} {
		t.Run(name, func(t *testing.T) {
			what, ours := Drifted(desired, older, c.sights, c.now)
			if !strings.Contains(what, c.what) || (what == "") != (c.what == "") || ours != c.ours {
				t.Errorf("got %q %v, want %q %v", what, ours, c.what, c.ours)
			}
		})
	}
}

func TestSilent(t *testing.T) {
	dead, alive := farm.Sight{Error: "refused"}, farm.Sight{Answered: true}
	for _, c := range []struct {
		sights []farm.Sight
		want   bool
	}{
		{nil, false},
		{[]farm.Sight{dead, dead}, true},
		{[]farm.Sight{dead, alive}, false},
		{[]farm.Sight{{Error: "no proof of the key", Chain: []byte("x")}}, false},
	} {
		if got := Silent(c.sights); got != c.want {
			t.Errorf("Silent(%+v) is %v", c.sights, got)
		}
	}
}

func TestConfidence(t *testing.T) {
	for k, want := range map[int]float64{-1: 0, 0: 0, 1: 0.5, 2: 0.75, 5: 0.96875} {
		if got := Confidence(k); got != want {
			t.Errorf("Confidence(%d) is %g, want %g", k, got, want)
		}
	}
	if Confidence(1000) >= 1 {
		t.Error("samples never make certain")
	}
}

func TestPresent(t *testing.T) {
	up, mute := farm.Sight{Answered: true}, farm.Sight{Error: "reset"}
	off := farm.Sight{Away: true, Error: "refused"}
	for name, c := range map[string]struct {
		sights []farm.Sight
		away   farm.Share
		want   int
	}{
		"all are there":              {[]farm.Sight{up, up}, farm.Share{Count: 1}, 2},
		"none may be away":           {[]farm.Sight{up, off}, farm.Share{}, 2},
		"one may":                    {[]farm.Sight{off, up, up}, farm.Share{Count: 1}, 2},
		"one may, and two are":       {[]farm.Sight{off, up, off}, farm.Share{Count: 1}, 3},
		"a share, rounded down":      {[]farm.Sight{off, up, up, up}, farm.Share{Percent: 25}, 3},
		"who takes a connection":     {[]farm.Sight{mute, up}, farm.Share{Count: 1}, 2},
		"one at least must be there": {[]farm.Sight{off, off}, farm.Share{Count: 2}, 2},
	} {
		if got := Present(c.sights, c.away); len(got) != c.want {
			t.Errorf("%s: %d are left, want %d", name, len(got), c.want)
		}
	}
}
