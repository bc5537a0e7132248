package dns01_test

import (
	"context"
	"errors"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// only is a writer that looks at what it is told to take away.
type only struct{ t *testing.T }

var digest = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

func (o only) Put(context.Context, dns01.Record) error { return nil }

func (o only) Remove(_ context.Context, r dns01.Record) error {
	if !digest.MatchString(r.Value) || r.Zone == "" || !strings.HasSuffix("."+r.Name, "."+r.Zone) {
		o.t.Errorf("it takes away %+v", r)
	}
	return nil
}

// FuzzReceipt: whatever a receipt says, only what can be ours is taken away.
func FuzzReceipt(f *testing.F) {
	f.Add([]byte(`{"zone":"dcv.test","name":"shop.dcv.test","value":"0123456789012345678901234567890123456789012","at":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"zone":"","name":"x","value":"v=spf1 -all"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, receipt []byte) {
		s := dns01.Solver{Writer: only{t}, Lookup: lookup.Client{
			Resolvers: map[string][]string{".": {"192.0.2.53:53"}},
			Dial:      func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("there is no network") },
		}}
		_ = s.CleanUp(t.Context(), challenge("www.farm.test", 1), receipt)
		if _, err := s.Spread(t.Context(), receipt); err == nil {
			t.Error("it sees servers where there are none")
		}
	})
}
