package controller

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// Readers of one store, of which one knows what it was built from, and so reads parts.
type readers struct {
	parts, wholes *Controller
	t             *testing.T
}

func newReaders(t *testing.T) readers {
	t.Helper()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c := Config{Store: s, Keys: secret.Fresh(), Kinds: target.All(), Now: clock}
	whole := New(c)
	c.Version = "v1.2.3"
	r := readers{New(c), whole, t}
	for _, name := range []string{"login", "store"} {
		if err := r.parts.SetSecret(t.Context(), "shop", name, farm.NewSecret([]byte("hunter2")), "test"); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// apply makes a text the newest revision.
func (r readers) apply(c *Controller, text string) {
	r.t.Helper()
	p, err := c.Plan(r.t.Context(), []byte(text), "farm.yaml")
	if err == nil {
		_, err = c.Apply(r.t.Context(), []byte(text), "farm.yaml", "test", p.Revision)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// plan plans a text by its parts and as a whole, which must be the same, and tells
// whether the parts were enough.
func (r readers) plan(text string) (sure, good bool) {
	r.t.Helper()
	part, sure, err := r.parts.planPart(r.t.Context(), []byte(text), "farm.yaml")
	if err != nil {
		r.t.Fatal(err)
	}
	got, gotErr := r.parts.Plan(r.t.Context(), []byte(text), "farm.yaml")
	want, wantErr := r.wholes.Plan(r.t.Context(), []byte(text), "farm.yaml")
	if sure && wantErr != nil || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
		r.t.Fatalf("the part was sure: %t, with the error %v, the whole has %v\n%s", sure, gotErr, wantErr, text)
	}
	if d := cmp.Diff(want, got); d != "" || sure && !cmp.Equal(part, got) {
		r.t.Fatalf("the part was sure: %t (-whole +part):\n%s\n%s", sure, d, text)
	}
	return sure, wantErr == nil
}

// shopHead and shopTail are a farm with waves, routes and a CA with limits, but for its
// sites.
const shopHead = `farm: shop
issuers:
  le: {acme: "https://acme-v02.api.letsencrypt.org/directory"}
  inner: {acme: "https://ca.example.com/directory"}
nodes:
  a: {address: 10.0.0.1, labels: {pool: x}, ssh: &line {user: d, key: {secret: login}, host_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINa2evsNirW6Bq7fOEdFxfawfAy7gywd+MYt964Fn8sy"}}
  b: {address: 10.0.0.2, labels: {pool: y}, ssh: *line}
  c: {address: 10.0.0.3, labels: {pool: y}, agent: true}
policy: {waves: [{name: first, match: {pool: x}}]}
sites:
`

const shopTail = `notifications:
  receivers: {slack: {secrets: {url: {secret: login}}}}
  routes: [{to: slack, sites: [s0], tags: [prod]}]
`

// shopSite is one site, of several kinds.
func shopSite(r *rand.Rand, name string) string {
	issuer, soak := []string{"le", "inner", "[le, inner]"}[r.IntN(3)], 1+r.IntN(3)
	names := name + ".example.com"
	if r.IntN(3) == 0 {
		names += ", www." + names
	}
	switch r.IntN(4) {
	case 0:
		return fmt.Sprintf("  %s: {names: [%s], issuer: %s, tags: [prod], targets: [{kind: files, on: a, options: {pem: /tls/%s.pem}}], policy: {soak: %dm}}\n", name, names, issuer, name, soak)
	case 1:
		return fmt.Sprintf("  %s:\n    names: [%s]\n    issuer: %s\n    # a comment\n    targets:\n    - kind: files\n      on: {pool: y}\n      options: {pem: /tls/%s.pem}\n\n", name, names, issuer, name)
	case 2:
		return fmt.Sprintf("  %s: {names: [%s], issuer: %s, strategy: per-node, targets: [{kind: files, on: [a, b], options: {pem: /tls/%s.pem}}]}\n# behind\n", name, names, issuer, name)
	}
	return fmt.Sprintf("  %s:\n    names: [%s]\n    issuer: %s\n    tags: [prod]\n    targets:\n      - {kind: pfx, on: b, options: {path: /tls/%s.pfx}, secrets: {password: {secret: store}}}\n", name, names, issuer, name)
}

// shopEdit is what somebody does to the sites.
func shopEdit(r *rand.Rand, sites []string) []string {
	sites = slices.Clone(sites)
	i, j := r.IntN(len(sites)), r.IntN(len(sites))
	name, _, _ := strings.Cut(strings.TrimSpace(sites[i]), ":")
	other, _, _ := strings.Cut(strings.TrimSpace(sites[j]), ":")
	switch r.IntN(9) {
	case 0, 1:
		sites[i] = shopSite(r, name)
	case 2:
		return slices.Insert(sites, i, shopSite(r, fmt.Sprint("n", r.IntN(100))))
	case 3:
		return slices.Concat(sites[:i], sites[max(i+1, min(2, len(sites))):])
	case 4: // what it had in place belongs to the renamed
		sites[i] = strings.Replace(sites[i], name, "renamed", 1)
	case 5:
		sites[i] = strings.ReplaceAll(sites[i], "/tls/"+name, "/tls/"+other)
	case 6:
		sites[i] = strings.ReplaceAll(sites[i], "{secret: store}", "{secret: unknown}")
	case 7:
		sites[i], sites[j] = sites[j], sites[i]
	case 8:
		at := r.IntN(len(sites[i]))
		sites[i] = sites[i][:at] + []string{"\"", "{", "]", ": ", "\n", "&x ", "  "}[r.IntN(7)] + sites[i][at:]
	}
	return sites
}

// Whatever is done to a farm: the plan by parts is the plan of the whole, with its
// warnings, prices and mistakes.
func TestPlansByPartsAreThoseOfTheWhole(t *testing.T) {
	t.Parallel()
	sure, good := 0, 0
	rs := newReaders(t)
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 11))
		sites := []string{"  s0: {names: [s0.example.com], issuer: le, tags: [prod], targets: [{kind: files, on: a, options: {pem: /tls/s0.pem}}]}\n"}
		for i := range 3 + r.IntN(6) {
			sites = append(sites, shopSite(r, fmt.Sprint("s", i+1)))
		}
		tail := []string{"", shopTail}[r.IntN(2)]
		rs.apply(rs.parts, shopHead+strings.Join(sites, "")+tail)
		for range 12 {
			edited := sites
			for range 1 + r.IntN(3) {
				edited = shopEdit(r, edited)
			}
			s, g := rs.plan(shopHead + strings.Join(edited, "") + tail)
			if s {
				sure++
			}
			if g {
				good++
			}
		}
	}
	if sure*2 < good {
		t.Errorf("%d of %d plans were made by parts", sure, good)
	}
	t.Logf("%d of %d good plans were made by parts", sure, good)
}

// A part is only read where it is known how the rest was, and that it is as good as
// then.
func TestPlansAreOfTheWholeWhereTheRestIsNotKnown(t *testing.T) {
	t.Parallel()
	rs := newReaders(t)
	r := rand.New(rand.NewPCG(1, 1))
	text := shopHead + shopSite(r, "s0") + shopSite(r, "s1") + "  s2: {names: [s2.example.com], issuer: le, targets: [{kind: pfx, on: b, options: {path: /tls/s2.pfx}, secrets: {password: {secret: store}}}]}\n"
	edited := text + shopSite(r, "s3")
	is := func(what string, want bool) {
		t.Helper()
		if sure, _ := rs.plan(edited); sure != want {
			t.Errorf("%s: the part was enough: %t", what, sure)
		}
	}
	is("nothing is stored", false)
	rs.apply(rs.parts, text)
	is("applied by this reader", true)
	for _, version := range []string{"", "unknown", "devel-0123456789ab", "v1.2.3+dirty", "v1.2.4"} {
		c := rs.parts.Config
		c.Version = version
		other := New(c)
		if _, sure, err := other.planPart(t.Context(), []byte(edited), "farm.yaml"); sure || err != nil {
			t.Errorf("version %q was sure, %v", version, err)
		}
	}
	if err := rs.parts.RemoveSecret(t.Context(), "shop", "store", "test"); err != nil {
		t.Fatal(err)
	}
	is("a secret of a site that stays is gone", false)
	if err := rs.parts.SetSecret(t.Context(), "shop", "store", farm.NewSecret([]byte("hunter2")), "test"); err != nil {
		t.Fatal(err)
	}
	is("it is set again", true)
	rs.apply(rs.wholes, strings.Replace(text, "/tls/s2.pfx", "/tls/two.pfx", 1))
	is("applied by another", false)
	rs.apply(rs.parts, text)
	err := rs.parts.Store.Update(t.Context(), func(tx *store.Tx) error {
		f, err := tx.Farm(t.Context(), "shop")
		_, saved := tx.SaveFarm(t.Context(), f, []byte(text), "test", 3)
		return errors.Join(err, saved)
	})
	if err != nil {
		t.Fatal(err)
	}
	is("saved past Apply", false)
}
