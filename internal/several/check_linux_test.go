package several

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// check holds everything against what must be true in the end, when no call is under
// way any more.
func (s *story) check(ctx context.Context) error {
	for _, p := range s.places {
		for !p.seen().quiet() {
			if err := wait(ctx, lookEvery); err != nil {
				return fmt.Errorf("calls that were under way: %w", err)
			}
		}
	}
	if err := s.granted(ctx); err != nil { // what arrived late on an unfenced place is mended
		return err
	}
	d, err := s.asker.Describe(ctx, "several", "shop")
	if err != nil {
		return err
	}
	var errs []error
	for i, p := range s.places {
		errs = append(errs, s.effects(i, p, d.Versions))
	}
	errs = append(errs, s.orders(d), s.alive(ctx))
	for _, p := range s.places {
		if f, ok := p.(*file); ok {
			errs = append(errs, s.heals(ctx, f, d.Versions[0].Leaves[0].Fingerprint))
		}
	}
	return errors.Join(errs...)
}

// effects are what a place served, one after another. Once a version is served
// everywhere, and its rollout has ended, nothing older comes back to a fenced or a
// conditional place: it would be the effect of a call from before.
func (s *story) effects(i int, p place, newestFirst []farm.Version) error {
	f := p.seen()
	f.mu.Lock()
	defer f.mu.Unlock()
	age := map[string]int{}
	for n, v := range newestFirst {
		age[v.Leaves[0].Fingerprint] = len(newestFirst) - n // the first is 1; what is none of them is 0
	}
	for _, e := range f.effects {
		for n, at := range s.came {
			if p.fenced() && e.at.After(at) && age[e.what] <= n {
				f.wrong = append(f.wrong, fmt.Sprintf("certificate %d came back %s after number %d was everywhere", age[e.what], e.at.Sub(at), n+1))
			}
		}
	}
	if len(f.wrong) > 0 {
		return fmt.Errorf("place %d, %T: stale effects: %v; all: %v", i, p, f.wrong, f.effects)
	}
	return nil
}

// orders: one for each intent, none finalized twice, every certificate of the CA is
// ours, and the CA was never asked for more than it allows.
func (s *story) orders(d controller.SiteDetail) error {
	var errs []error
	intents, well := map[string]int{}, 0
	for _, o := range d.Orders {
		if intents[o.Intent]++; intents[o.Intent] > 1 {
			errs = append(errs, fmt.Errorf("intent %s has a second order", o.Intent))
		}
		if o.State != farm.OrderFailed {
			well++
		}
	}
	stats := s.ca.Stats()
	if n := stats.Finalized["shop.test"]; n > well {
		errs = append(errs, fmt.Errorf("%d orders were finalized for %d that are well", n, well))
	}
	if n := stats.Certificates["shop.test"]; n != len(d.Versions) {
		errs = append(errs, fmt.Errorf("the CA issued %d certificates, and we have %d", n, len(d.Versions)))
	}
	if len(stats.Limited) > 0 {
		errs = append(errs, fmt.Errorf("the CA refused by its limits: %v", stats.Limited))
	}
	return errors.Join(errs...)
}

// alive: whoever works is known to.
func (s *story) alive(ctx context.Context) error {
	k, err := s.asker.Checkup(ctx, "several")
	if err != nil {
		return err
	}
	alive := 0
	for _, c := range k.Controllers {
		if c.Alive {
			alive++
		}
	}
	if alive < len(s.crew) || k.Database.Engine != "postgres" || k.Database.Identity == "" {
		return fmt.Errorf("%d controllers work, doctor tells of %+v on %+v", len(s.crew), k.Controllers, k.Database)
	}
	return nil
}

// mendWithin is how long a rollout to one target may take, on a machine where others
// compile.
const mendWithin = 20 * time.Second

// heals: a call that arrives when all is over has its effect on an unfenced place,
// which is found when it is next looked at.
func (s *story) heals(ctx context.Context, f *file, newest string) error {
	if err := f.relapse(); err != nil {
		return fmt.Errorf("a call that arrives late: %w", err)
	}
	began := time.Now()
	for f.serves() != newest {
		if err := wait(ctx, lookEvery/10); err != nil {
			return fmt.Errorf("an old version that came back is not mended: %w", err)
		}
	}
	if s.healed = time.Since(began); s.healed > pace().Look+mendWithin {
		return fmt.Errorf("an old version that came back was mended after %s", s.healed)
	}
	return nil
}

// tally is what there is to tell of a story that went well.
func (s *story) tally() string {
	refused := 0
	for _, p := range s.places {
		refused += p.seen().refused
	}
	text := fmt.Sprintf("%d calls of relieved controllers were refused", refused)
	if s.healed > 0 {
		text += fmt.Sprintf(", a place without a fence was mended after %s", s.healed.Round(10*time.Millisecond))
	}
	return text
}
