package controller_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/boulder"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// twoCAs is a farm whose site has two issuers, pebble and second, in an order, and a
// switch that lets the former hang up on whoever asks.
func twoCAs(t *testing.T, order string) (s setting, down *atomic.Bool) {
	options := boulder.Options{Identity: "second.test"}
	down = &atomic.Bool{}
	s.layout = lab.Layout{Nodes: 2}
	s.ca.Wrap = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if down.Load() {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	}
	s.edit = func(b *bed, text string) string {
		_, port, err := net.SplitHostPort(b.Balancer.HTTPAddr())
		must(t, err)
		options.DNS, options.Now = b.DNS.Addr(), b.clock.now
		options.HTTPPort, err = strconv.Atoi(port)
		must(t, err)
		ca, err := boulder.Start(options)
		must(t, err)

		t.Cleanup(func() { must(t, ca.Close()) })
		other := fmt.Sprintf("issuers:\n  second:\n    acme: %q\n    roots: |\n%s", ca.Directory, indented(ca.ListenRoots+ca.Roots))
		text = strings.Replace(text, "issuers:\n", other, 1)
		return strings.Replace(text, "    issuer: pebble\n", "    issuer: ["+order+"]\n", 1)
	}
	return s, down
}

func indented(text string) string {
	return "      " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n      ") + "\n"
}

// A CA that answers nothing is waited for while there is time; then the order there is
// given up and the next issuer is asked, which is told with the arithmetic. What comes
// goes out as a changed shape. The next renewal begins with the first again.
func TestTheNextIssuerIsAsked(t *testing.T) {
	t.Parallel()
	s, down := twoCAs(t, "pebble, second")
	b, first := serving(t, s)
	down.Store(true)
	b.renew()
	b.until("the CA is known to be silent", func(tx *store.Tx) (bool, error) {
		i, err := tx.Issuer(b.ctx, b.Farm, "pebble")
		if err != nil {
			return false, err
		}
		a, err := tx.Account(b.ctx, b.Farm, "pebble", i.Directory)
		return !a.Silent.IsZero(), err
	})
	b.pass(24 * time.Hour)
	b.waits("the order is")
	if n := b.count("issuer.next"); n != 0 {
		t.Fatalf("another issuer is asked within a day\n%s", b.story())
	}
	b.pass(61 * 24 * time.Hour) // three quarters of 90 days but a twelfth
	if e := b.happens("order.given-up", ""); !strings.Contains(e.Text, "pebble does not") || e.Level != farm.Warn {
		t.Errorf("told: %s", e.Text)
	}
	e := b.happens("issuer.next", "")
	if !strings.Contains(e.Text, "the last order at pebble failed") || !strings.Contains(e.Text, "before the last safe start") || !strings.Contains(e.Text, "second is asked") {
		t.Errorf("told: %s", e.Text)
	}
	r := b.soak(farm.Done, 2)
	v := b.newest()
	if v.Issuer != "second" || !r.Changed || len(r.Waves) < 2 {
		t.Errorf("%s issued, changed %v, %d waves", v.Issuer, r.Changed, len(r.Waves))
	}
	b.allServe(v.Leaves[0].Fingerprint)
	if v.Leaves[0].Fingerprint == first || b.describe().Certificate.Failures != 0 {
		t.Errorf("%+v", b.describe().Certificate)
	}
	b.rests()
	down.Store(false)
	b.renew()
	b.until("the first is returned to", func(tx *store.Tx) (bool, error) { return b.newest().Issuer == "pebble", nil })
	for _, o := range b.describe().Orders {
		if o.Replaces != "" && o.Issuer != "pebble" {
			t.Errorf("%s is to replace what another CA issued", o.Issuer)
		}
	}
	b.until("the CA is known to answer", func(tx *store.Tx) (bool, error) {
		i, err := tx.Issuer(b.ctx, b.Farm, "pebble")
		a, missing := tx.Account(b.ctx, b.Farm, "pebble", i.Directory)
		return a.Silent.IsZero(), errors.Join(err, missing)
	})
}

// An issuer that a CAA record forbids is not asked at all, and people are told which
// record it is.
func TestAForbiddenIssuerIsNotAsked(t *testing.T) {
	t.Parallel()
	s, _ := twoCAs(t, "second, pebble")
	b, _ := serving(t, s)
	if v := b.newest(); v.Issuer != "second" {
		t.Fatalf("%s issued", v.Issuer)
	}
	must(t, b.DNS.SetRecords("shop.test.", dns.TypeCAA, `shop.test. 60 IN CAA 0 issue "ca.test"`))
	b.renew()
	e := b.happens("issuer.next", "")
	if !strings.Contains(e.Text, "second is not asked: caa of shop.test: ") || !strings.Contains(e.Text, "ca.test may issue, this CA may not") {
		t.Errorf("told: %s", e.Text)
	}
	b.until("the other issues", func(*store.Tx) (bool, error) { return b.newest().Issuer == "pebble", nil })
	if c := b.describe().Certificate; c.Barred["second"] == "" || c.Barred["pebble"] != "" {
		t.Errorf("barred: %v", c.Barred)
	}
}

// newest is the newest version.
func (b *bed) newest() farm.Version {
	b.t.Helper()
	return b.describe().Versions[0]
}
