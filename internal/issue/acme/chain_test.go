package acme_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

func leafOf(t testing.TB, chain []byte) *x509.Certificate {
	t.Helper()
	return certsOf(t, chain)[0]
}

func certsOf(t testing.TB, text []byte) (all []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		all = append(all, cert)
	}
	if len(all) == 0 {
		t.Fatalf("no certificate in %q", text)
	}
	return all
}

func TestPreferredChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{AlternateRoots: 2, ChainLength: 2})
	roots := certsOf(t, []byte(w.ca.Roots))
	if len(roots) != 3 {
		t.Fatalf("the CA has %d roots", len(roots))
	}
	for _, root := range append(roots, nil) {
		want := roots[0].Subject.CommonName // the default, for one that does not exist
		w.config = func(c *acme.Config) { c.Issuer.PreferredChain = "No Such Root" }
		if root != nil {
			want = root.Subject.CommonName
			w.config = func(c *acme.Config) { c.Issuer.PreferredChain = want }
		}
		o, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return w.issuer(t) })
		must(t, err)
		certs := certsOf(t, o.Chain)
		if got := certs[len(certs)-1].Issuer.CommonName; got != want {
			t.Errorf("the chain leads to %q, want %q", got, want)
		}
	}
}

// A certificate for another key is thrown away.
func TestWrongLeaf(t *testing.T) {
	t.Parallel()
	var other []byte
	w := newWorld(t, issuetest.Options{Wrap: issuetest.Change(issuetest.Certificate, func(body []byte) []byte {
		if other == nil {
			other = body
		}
		return other
	})})
	one := w.issuer(t)
	_, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return one })
	must(t, err)
	o, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return one })
	if !errors.Is(err, issue.Refused) || !strings.Contains(err.Error(), "another key") {
		t.Errorf("error is %v", err)
	}
	if len(o.Chain) > 0 {
		t.Error("the chain was kept")
	}
}

// The certificate is not there yet when it is first asked for.
func TestCertificateLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{Wrap: issuetest.Answer(issuetest.Certificate, 1,
		reply(404, "", `{"type":"urn:ietf:params:acme:error:malformed","detail":"Certificate not found"}`))})
	_, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return w.issuer(t) })
	must(t, err)
	oneCertificate(t, w, "www.farm.test")
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	one := w.issuer(t)
	o, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return one })
	must(t, err)
	now := time.Now().Truncate(time.Second)

	s, err := one.Suggest(t.Context(), o.Chain, now)
	must(t, err)
	if s.Chosen.Before(s.Start) || s.Chosen.After(s.End) || s.Start.IsZero() || !s.Ask.Equal(now.Add(6*time.Hour)) {
		t.Errorf("suggestion is %+v", s)
	}
	same, err := w.issuer(t).Suggest(t.Context(), o.Chain, now.Add(time.Minute))
	must(t, err)
	if !same.Chosen.Equal(s.Chosen) {
		t.Errorf("the same window gave %s and %s", s.Chosen, same.Chosen)
	}

	past := issuetest.Window{Start: now.Add(-2 * time.Hour), End: now.Add(-time.Hour), Explanation: "https://ca.test/\x1b[31mwhy\u202e"}
	must(t, w.ca.SetARI(o.Chain, past))
	s, err = one.Suggest(t.Context(), o.Chain, now)
	must(t, err)
	if !s.Chosen.Equal(now) || s.Explanation != "https://ca.test/[31mwhy" {
		t.Errorf("suggestion for a window in the past is %+v", s)
	}

	for _, useless := range []string{
		"garbage", "null", "{}", `[]`, `{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-01T00:00:00Z"}}`,
		`{"suggestedWindow":{"start":"yesterday"}}`,
	} {
		must(t, w.ca.SetARIText(o.Chain, useless))
		s, err := one.Suggest(t.Context(), o.Chain, now)
		must(t, err)
		if !s.Chosen.IsZero() || !s.Ask.Equal(now.Add(6*time.Hour)) {
			t.Errorf("%s: suggestion is %+v", useless, s)
		}
	}
}

func TestSuggestAskAgain(t *testing.T) {
	t.Parallel()
	const window = `{"suggestedWindow":{"start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z"}}`
	for name, c := range map[string]struct {
		reply issuetest.Reply
		ask   time.Duration // 0: an error
	}{
		"at once":      {reply(200, "0", window), 6 * time.Hour},
		"one second":   {reply(200, "1", window), time.Minute},
		"an hour":      {reply(200, "3600", window), time.Hour},
		"ten years":    {reply(200, "315360000", window), 24 * time.Hour},
		"nothing":      {reply(200, "", window), 6 * time.Hour},
		"not found":    {reply(404, "", ``), 6 * time.Hour},
		"server error": {reply(500, "", ``), 0},
		"busy":         {reply(503, "60", ``), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, issuetest.Options{Wrap: issuetest.Answer(issuetest.RenewalInfo, 1, c.reply)})
			now := time.Now()
			s, err := w.issuer(t).Suggest(t.Context(), anyLeaf(t), now)
			if c.ask == 0 {
				if later, ok := errors.AsType[*issue.Later](err); err == nil || (ok && later.Account) {
					t.Errorf("error is %v", err)
				}
				return
			}
			must(t, err)
			if got := s.Ask.Sub(now); got != c.ask {
				t.Errorf("ask again after %s, want %s", got, c.ask)
			}
		})
	}
}

// anyLeaf is a certificate that can be asked about: it has a serial number and
// its issuer's key id.
func anyLeaf(t *testing.T) []byte {
	t.Helper()
	key, err := issue.NewKey(farm.EC256)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(0x87654321), AuthorityKeyId: []byte{1, 2, 3}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	return der
}
