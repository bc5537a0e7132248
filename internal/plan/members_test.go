package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// perNode makes each node's part of a site a member.
func perNode(f *farm.Farm, name string) {
	var all []farm.Site
	for _, s := range f.Sites {
		if s.Name != name {
			all = append(all, s)
			continue
		}
		for i, t := range s.Targets {
			m := s
			m.Name, m.Strategy = farm.MemberName(s.Name, t.Node), farm.PerNode
			m.Member = &farm.Member{Of: s.Name, Node: t.Node, Wave: i, Parallel: 1}
			t.Site = m.Name
			m.Targets = []farm.Target{t}
			all = append(all, m)
		}
	}
	f.Sites = all
}

func TestDiffOfStrategies(t *testing.T) {
	members := func(edit func(*farm.Farm)) (from, to farm.Farm) {
		from, to = shop(), shop()
		perNode(&from, "shop")
		perNode(&to, "shop")
		edit(&to)
		return from, to
	}
	for _, test := range []struct {
		name string
		make func() (from, to farm.Farm)
		want []string
	}{
		{"to per-node", func() (from, to farm.Farm) {
			from, to = shop(), shop()
			perNode(&to, "shop")
			return from, to
		}, []string{"issue shop +certificate on shop/nginx@web1 shop/nginx@web2; strategy: central -> per-node (shop@web1 shop@web2)"}},
		{"back to central", func() (from, to farm.Farm) {
			from, to = shop(), shop()
			perNode(&from, "shop")
			return from, to
		}, []string{"issue shop +certificate on shop/nginx@web1 shop/nginx@web2; strategy: per-node -> central (shop shop@web1 shop@web2)"}},
		{"to per-node with other tags and another soak", func() (from, to farm.Farm) {
			from, to = shop(), shop()
			to.Sites[1].Tags, to.Sites[1].Policy.Soak = []string{"night"}, time.Hour
			perNode(&to, "shop")
			return from, to
		}, []string{
			"issue shop +certificate on shop/nginx@web1 shop/nginx@web2; strategy: central -> per-node (shop@web1 shop@web2)",
			"policy shop; soak: 30s -> 1h0m0s (shop@web1 shop@web2)", "site shop; tags: prod -> night (shop@web1 shop@web2)",
		}},
		{"to per-node without a target", func() (from, to farm.Farm) {
			from, to = shop(), shop()
			to.Sites[1].Targets = to.Sites[1].Targets[:1]
			perNode(&to, "shop")
			return from, to
		}, []string{"issue shop +certificate on shop/nginx@web1; strategy: central -> per-node (shop@web1)", "release shop on shop/nginx@web2 (shop@web1)"}},
		{"to edge", func() (from, to farm.Farm) {
			from, to = shop(), shop()
			to.Sites[1].Strategy = farm.Edge
			return from, to
		}, []string{"site shop; strategy: central -> edge"}},
		{"nothing", func() (from, to farm.Farm) { return members(func(*farm.Farm) {}) }, nil},
		{"a profile of all", func() (from, to farm.Farm) {
			return members(func(f *farm.Farm) { f.Sites[1].Profile, f.Sites[2].Profile = "x", "x" })
		}, []string{"issue shop +certificate on shop/nginx@web1 shop/nginx@web2; profile: tlsserver -> x (shop@web1 shop@web2)"}},
		{"another order", func() (from, to farm.Farm) {
			return members(func(f *farm.Farm) { f.Sites[2].Member = &farm.Member{Of: "shop", Node: "web2", Wave: 2, Parallel: 1} })
		}, []string{"policy shop; wave of the node: 2 -> 3 (shop@web2)"}},
		{"a node gone", func() (from, to farm.Farm) {
			return members(func(f *farm.Farm) { f.Sites = f.Sites[:2] })
		}, []string{"release shop on shop/nginx@web2 (shop@web2)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			from, to := test.make()
			var got []string
			for _, c := range Diff(from, to) {
				text := line(c)
				if len(c.Members) > 0 {
					text += " (" + strings.Join(c.Members, " ") + ")"
				}
				got = append(got, text)
				if c.Moves() != (strings.Contains(text, "strategy: ") && c.Do == Issue) {
					t.Errorf("%s moves: %v", text, c.Moves())
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// A new site of several nodes is one change, whatever names the nodes have of their own.
func TestNewMembersAreOneChange(t *testing.T) {
	from, to := shop(), shop()
	from.Sites = from.Sites[:1]
	perNode(&to, "shop")
	own := func(names ...string) {
		for _, m := range to.Sites[1:] {
			i := slices.IndexFunc(to.Sites, func(s farm.Site) bool { return s.Name == m.Name })
			to.Sites[i].Names = append(slices.Clone(names), m.Member.Node+".example.com")
		}
	}
	own("shop.example.com")
	got := Diff(from, to)
	if len(got) != 1 || got[0].Name != "shop" || len(got[0].Members) != 2 || !got[0].Certificate {
		t.Errorf("got %+v", got)
	}
	from.Sites = slices.Clone(to.Sites)
	own("shop.example.com", "www.shop.example.com")
	got = Diff(from, to)
	if len(got) != 1 || got[0].Name != "shop" || len(got[0].Members) != 2 || !got[0].Certificate {
		t.Fatalf("another name: got %+v", got)
	}
	if f := got[0].Fields[0]; f.Old != "shop.example.com, {node}.example.com" || f.New != "shop.example.com, www.shop.example.com, {node}.example.com" {
		t.Errorf("got %+v", f)
	}
}
