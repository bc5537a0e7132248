package plan

import (
	"slices"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
)

// A share goes live for all its readers at once: it is said with every change that
// installs something on it, and with no other.
func TestBlastRadius(t *testing.T) {
	store := farm.Target{
		Name: "shop/ccs", Site: "shop", Kind: "ccs", Identity: "ccs //files/certs/shop.example.com.pfx", Group: "ccs //files/certs",
		Endpoints: []farm.Endpoint{{Address: "10.0.1.1:443"}, {Address: "10.0.1.2:443"}, {Address: "10.0.1.2:8443"}, {Address: "[2001:db8::1]:443"}},
	}
	single := store
	single.Name, single.Endpoints = "shop/alone", store.Endpoints[1:3]
	with := func(more ...farm.Target) farm.Farm {
		f := shop()
		f.Sites[1].Targets = append(f.Sites[1].Targets, more...)
		return f
	}
	want := []Blast{{"shop/ccs", 3}}
	for name, c := range map[string]struct {
		from, to farm.Farm
		want     []Blast
	}{
		"a new farm":   {farm.Farm{Name: "shop"}, with(store, single), want},
		"a new target": {with(single), with(single, store), want},
		"one reader":   {shop(), with(single), nil},
		"gone":         {with(store), shop(), nil},
	} {
		var got []Blast
		for _, change := range Diff(c.from, c.to) {
			got = append(got, change.Blasts...)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	policy := with(store)
	policy.Sites[1].Policy.MaxParallel = 7
	for _, change := range Diff(with(store), policy) {
		if len(change.Blasts) > 0 {
			t.Errorf("%s of %s installs nothing: %v", change.Do, change.Name, change.Blasts)
		}
	}
}

// One more server that is to read a store, and that is changed with it, is installed on;
// where servers only read it, it is looked at elsewhere.
func TestOneMoreReader(t *testing.T) {
	two := farm.Target{Name: "shop/ccs", Site: "shop", Kind: "ccs", Endpoints: []farm.Endpoint{{Address: "10.0.1.1:443"}, {Address: "10.0.1.2:443"}}}
	three := two
	three.Endpoints = append(slices.Clone(two.Endpoints), farm.Endpoint{Address: "10.0.1.3:443"})
	does := func(from, to farm.Target) (all []Do) {
		with := func(target farm.Target) farm.Farm {
			f := shop()
			f.Sites[1].Targets = append(f.Sites[1].Targets, target)
			return f
		}
		for _, c := range Diff(with(from), with(to)) {
			all = append(all, c.Do)
		}
		slices.Sort(all)
		return all
	}
	if got := does(two, three); !slices.Equal(got, []Do{Watch}) {
		t.Errorf("a reader more is %q", got)
	}
	two.ReadBy, three.ReadBy = []string{"iis1", "iis2"}, []string{"iis1", "iis2", "iis3"}
	if got := does(two, three); !slices.Contains(got, RollOut) {
		t.Errorf("a server more that is changed, too, is %q", got)
	}
}
