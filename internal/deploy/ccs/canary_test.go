package ccs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

const (
	canary     = "canary.example.org"
	canaryFile = canary + extension
)

// bird is a shop with a canary, and with readers.
type bird struct {
	shop
	asked []string // what the readers were asked, and what was live then
}

func newBird(t *testing.T) *bird {
	t.Helper()
	b := &bird{shop: newShop(t, func(o *Options) { o.Canary = canary })}
	b.readers = b.see(nil)
	return b
}

// see is a look that ends as says (nil: every reader serves it).
func (b *bird) see(says func(ctx context.Context) error) deploy.Look {
	return func(ctx context.Context, sni string, leaves []string) error {
		b.asked = append(b.asked, fmt.Sprint(sni, " ", len(leaves), " ", leaves[0][:8]))
		if says == nil {
			return nil
		}
		return says(ctx)
	}
}

func covering(t *testing.T) farm.Bundle {
	t.Helper()
	return bundleFor(t, append([]string{canary}, deploytest.Names...)...)
}

// renamed is what was switched since the host had seen so many calls.
func (b *bird) renamed(since int) (all []string) {
	for _, call := range b.host.Calls()[since:] {
		if name, ok := strings.CutPrefix(call, "rename "); ok {
			all = append(all, strings.TrimSuffix(path.Base(name), nextSuffix))
		}
	}
	return all
}

// A first version is live; the second one's canary goes first, every reader is
// asked for it, and only then the live names.
func TestCanaryGoesFirst(t *testing.T) {
	b := newBird(t)
	old := covering(t)
	first := b.install(t, 1, old)
	if first.Wait != 5*time.Minute+mostMargin || first.Lag != 5*time.Minute {
		t.Errorf("waits %s, with a lag of %s", first.Wait, first.Lag)
	}
	must(t, b.Discard(t.Context(), first))
	before, next := b.root(), covering(t)
	r := []deploy.Receipt{b.stage(t, 2, next)}
	b.asked = nil
	b.readers = b.see(func(context.Context) error {
		got := b.root()
		if got[canaryFile] == before[canaryFile] || got["www.example.org.pfx"] != before["www.example.org.pfx"] {
			t.Error("it is not the canary alone that was switched")
		}
		return nil
	})
	calls := len(b.host.Calls())
	must(t, b.Activate(t.Context(), r))
	if want := []string{canary + " 1 " + next.Leaf[:8]}; !slices.Equal(b.asked, want) {
		t.Errorf("the readers were asked %q, want %q", b.asked, want)
	}
	if got := b.renamed(calls); len(got) != 3 || got[0] != canaryFile {
		t.Errorf("switched %q", got)
	}
	must(t, b.Activate(t.Context(), r))
	if len(b.asked) != 1 {
		t.Error("the readers were asked again although nothing was left to switch")
	}
	must(t, b.Restore(t.Context(), r))
	if !maps.Equal(before, b.root()) {
		t.Error("the canary is not what it was")
	}
}

// A reader that does not take the canary up, or a call whose time is over: no
// live name was touched, and the canary is what it was.
func TestCanaryThatIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBird(t)
		must(t, b.Discard(t.Context(), b.install(t, 1, covering(t))))
		before := b.root()
		r := []deploy.Receipt{b.stage(t, 2, covering(t))}
		blind := errors.New("10.0.0.12:443 serves nothing for it")
		b.readers = b.see(func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w: %w", host.ErrUnreachable, blind, ctx.Err())
		})
		calls, begin := len(b.host.Calls()), time.Now()
		err := b.Activate(t.Context(), r)
		if took := time.Since(begin); took != 5*time.Minute+mostMargin {
			t.Errorf("it was waited for for %s", took)
		}
		if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, host.ErrUnreachable) {
			t.Errorf("it is the readers' fault, not the store's: %v", err)
		}
		for _, says := range []string{canary, "10.0.0.12:443 serves nothing", "no live name was touched", "-SslFlags 3", "5m0s"} {
			if err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("it does not say %q: %v", says, err)
			}
		}
		if !maps.Equal(before, b.root()) {
			t.Error("not all is what it was")
		}
		if got := b.renamed(calls); !slices.Equal(got, []string{canaryFile, canaryFile}) {
			t.Errorf("switched %q", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Activate(ctx, r); !errors.Is(err, context.DeadlineExceeded) || !maps.Equal(before, b.root()) {
			t.Errorf("a call whose time is over gives %v", err)
		}
	})
}

// The controller dies after the canary, or in the middle of the live names: the
// next call asks the readers again and goes on; if they say no, all goes back.
func TestCanaryAfterADeath(t *testing.T) {
	for _, renames := range []int{1, 2} {
		for _, served := range []bool{true, false} {
			b := newBird(t)
			must(t, b.Discard(t.Context(), b.install(t, 1, covering(t))))
			before, next := b.root(), covering(t)
			r := []deploy.Receipt{b.stage(t, 2, next)}
			n := 0
			b.host.Refuse = func(call string) error {
				if strings.HasPrefix(call, "rename ") {
					n++
				}
				if n > renames {
					return errors.New("the controller is dead")
				}
				return nil
			}
			if err := b.Activate(t.Context(), r); err == nil {
				t.Fatal("it did not die")
			}
			b.host.Mend()
			b.asked = nil
			if served {
				must(t, b.Activate(t.Context(), r))
				must(t, b.Restore(t.Context(), r))
			} else {
				b.readers = b.see(func(context.Context) error { return errors.New("it serves another") })
				if err := b.Activate(t.Context(), r); err == nil {
					t.Error("readers that say no are no error")
				}
			}
			if len(b.asked) != 1 || !maps.Equal(before, b.root()) {
				t.Errorf("after %d renames (served: %t): asked %q, and the store has %d files that changed", renames, served, b.asked, len(b.root()))
			}
		}
	}
}

// Without readers to ask there is no canary to wait for: it goes first, in the
// same breath. What the certificate does not cover is refused at Stage.
func TestCanaryWithoutReaders(t *testing.T) {
	b := newBird(t)
	b.readers = nil
	calls := len(b.host.Calls())
	b.install(t, 1, covering(t))
	if got := b.renamed(calls); len(got) != 3 || got[0] != canaryFile {
		t.Errorf("switched %q", got)
	}
	if _, err := b.Stage(t.Context(), deploy.Stage{Site: "shop", Bundles: []farm.Bundle{bundleFor(t, deploytest.Names...)}}); err == nil {
		t.Error("a certificate that does not cover the canary passed")
	}
	plainly := newShop(t, plain)
	if r := plainly.stage(t, 1, bundleFor(t, deploytest.Names...)); r.Wait != 0 {
		t.Errorf("a store without a canary waits %s", r.Wait)
	}
}

// Two sites may not have one canary: they would write over each other's.
func TestCanaryIsAPlace(t *testing.T) {
	b := newBird(t)
	if got := b.options.Places(); len(got) != 3 || got[2] != "ccs /srv/certs/"+canaryFile {
		t.Errorf("it writes to %q", got)
	}
}

// Of two sites that are made live together each one's canary is asked for at its own
// readers.
func TestCanariesOfTwoSites(t *testing.T) {
	b := newBird(t)
	second := newShop(t, func(o *Options) { o.Canary, o.Names = "bird.example.net", []string{"www.example.net"} })
	second.Store.files, b.target, second.target = b.host, "shop/ccs", "shelf/ccs"
	rs := []deploy.Receipt{b.stage(t, 1, covering(t)), second.stage(t, 1, bundleFor(t, "bird.example.net", "www.example.net"))}
	var theirs []string
	b.looks = func(_ context.Context, target string) (deploy.Look, error) {
		return func(_ context.Context, sni string, _ []string) error {
			theirs = append(theirs, target+" "+sni)
			return nil
		}, nil
	}
	must(t, b.Activate(t.Context(), rs))
	if len(b.asked) != 1 || !strings.HasPrefix(b.asked[0], canary) || !slices.Equal(theirs, []string{"shelf/ccs bird.example.net"}) {
		t.Errorf("our readers were asked %q, and others %q", b.asked, theirs)
	}
	must(t, b.Restore(t.Context(), rs))
	gone := errors.New("there is no such target")
	b.looks = func(context.Context, string) (deploy.Look, error) { return nil, gone }
	if err := b.Activate(t.Context(), rs); !errors.Is(err, gone) || len(b.root()) != 0 {
		t.Errorf("got %v", err)
	}
}
