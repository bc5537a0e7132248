package probe

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

// What a server exchanges keys with is not what is asked.
func TestProbeSeesServersOfAnyKeyExchange(t *testing.T) {
	ca := newAuthority(t, "A")
	cert := ca.leaf(t, ecKey(t))
	for _, curve := range []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP521} {
		t.Run(curve.String(), func(t *testing.T) {
			q := ask(ca, serve(t, &tls.Config{Certificates: []tls.Certificate{cert}, CurvePreferences: []tls.CurveID{curve}}))
			q.Samples = 2
			if s := see(t, q); !s.Trusted || s.Samples != 2 || s.Error != "" {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// A chain that led to the roots is taken for good for a moment, and for those roots
// alone; the leaf's own dates and names count every time.
func TestAMemoryHoldsForAMoment(t *testing.T) {
	ca, other := newAuthority(t, "A"), newAuthority(t, "B")
	cert := ca.leaf(t, ecKey(t))
	short := *ca.between
	short.NotAfter = noon.Add(30 * time.Second)
	cert.Certificate = [][]byte{cert.Certificate[0], sign(t, &short, ca.root, ca.betweenKey, ca.rootKey).Raw}
	q := ask(ca, serveCerts(t, cert))
	memory, now := NewMemory(), noon
	distrust := func() string {
		t.Helper()
		s, err := TLS{Now: func() time.Time { return now }, Memory: memory}.Probe(t.Context(), q)
		if err != nil || !s.Answered {
			t.Fatal(s, err)
		}
		return s.Distrust
	}
	for _, c := range []struct {
		after time.Duration
		roots string
		names []string
		want  string
	}{
		{0, ca.roots, nil, ""},
		{0, other.roots, nil, "missing intermediate or unknown authority"},
		{0, ca.roots, []string{"else.test"}, "wrong name"},
		{45 * time.Second, ca.roots, nil, ""}, // remembered
		{remembered, ca.roots, nil, `wrong chain: "CN=A intermediate" expired at`},
		{-24 * time.Hour, ca.roots, nil, ""},
	} {
		now, q.Roots, q.Names = noon.Add(c.after), c.roots, c.names
		if got := distrust(); !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("after %s: %q, want %q", c.after, got, c.want)
		}
	}
}
