package several

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A trouble is one thing that may happen to a controller, for a while.
type trouble struct {
	name string
	do   func(ctx context.Context, s *story, c *crew, span time.Duration) error
}

// troubles are all that there are. Between controllers there is nothing but the
// database, through which each calls the others when it has written: that call is what
// "deaf" takes away. The controller then finds out when it next looks.
func troubles() []trouble {
	return []trouble{
		{"kill", killed},
		{"stop", stopped},
		{"cut", broken(toDatabase, (*line).sever)},
		{"mute", broken(toDatabase, (*line).silence)},
		{"deaf", broken(toDatabase, (*line).deafen)},
		{"cut from nodes", broken(toNodes, (*line).sever)},
		{"mute to nodes", broken(toNodes, (*line).silence)},
	}
}

// killed is a controller that dies; after a while another takes its place.
func killed(ctx context.Context, s *story, c *crew, span time.Duration) error {
	if err := c.process.Process.Kill(); err != nil {
		return err
	}
	_ = c.process.Wait() // it says that it was killed
	if err := wait(ctx, span); err != nil {
		return err
	}
	return s.rise(ctx, c)
}

// stopped is a controller that stands still in the middle of what it does, and then
// goes on with it.
func stopped(ctx context.Context, _ *story, c *crew, span time.Duration) error {
	if err := c.process.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(wait(ctx, span), c.process.Process.Signal(syscall.SIGCONT))
}

func toDatabase(c *crew) []*line { return []*line{c.line} }

func toNodes(c *crew) []*line { return slices.Collect(maps.Values(c.nodes)) }

// broken are lines of a controller that do not do what they should.
func broken(which func(*crew) []*line, how func(*line)) func(context.Context, *story, *crew, time.Duration) error {
	return func(ctx context.Context, _ *story, c *crew, span time.Duration) error {
		for _, l := range which(c) {
			how(l)
			defer l.heal()
		}
		return wait(ctx, span)
	}
}

// suffer has something happen to a controller.
func (s *story) suffer(ctx context.Context) error {
	all := troubles()
	victim, busy, act := s.chance.IntN(len(s.crew)), s.chance.IntN(3) > 0, s.chance.IntN(2) > 0
	in := time.Duration(s.chance.Int64N(int64(1500 * time.Millisecond)))
	span := time.Duration(s.chance.Int64N(int64(pace().Lease * 3 / 2)))
	what := all[s.chance.IntN(len(all))]
	when := "after " + in.Round(time.Millisecond).String()
	if act {
		in /= 4
		when = in.Round(time.Millisecond).String() + " into an act"
		s.deploying(ctx)
	}
	if err := wait(ctx, in); err != nil {
		return err
	}
	if busy || act {
		victim = s.working(ctx, victim)
	}
	s.done = append(s.done, fmt.Sprintf("%s %d %s for %s", what.name, victim, when, span.Round(time.Millisecond)))
	return what.do(ctx, s, s.crew[victim], span)
}

// wish asks for a certificate, treats the controllers badly meanwhile, and waits
// until every place serves it.
func (s *story) wish(ctx context.Context) error {
	s.wished++
	if s.wished == 1 {
		text, err := s.farmYAML()
		if err != nil {
			return err
		}
		if _, err := s.asker.Apply(ctx, text, "farm.yaml", "test", 0); err != nil {
			return err
		}
	} else if err := s.asker.Renew(ctx, "several", "shop", "test"); err != nil {
		return err
	}
	if err := s.suffer(ctx); err != nil {
		return err
	}
	if err := s.granted(ctx); err != nil {
		return err
	}
	s.came = append(s.came, time.Now())
	if s.wished > 1 {
		return nil
	}
	for _, p := range s.places {
		if f, ok := p.(*file); ok {
			return f.keep()
		}
	}
	return nil
}

// deploying waits until something is done on a target, a while at most: the wish may
// have come true.
func (s *story) deploying(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		written := s.config.Store.Written()
		if s.holder(ctx, "act") >= 0 {
			return
		}
		select {
		case <-written:
		case <-ctx.Done():
			return
		}
	}
}

// working is a controller that does something now, rather on a target; else, where
// none does, another.
func (s *story) working(ctx context.Context, another int) int {
	for _, kind := range []string{"act", ""} {
		if i := s.holder(ctx, kind); i >= 0 {
			return i
		}
	}
	return another
}

// holder is a controller that holds a lane for a job of a kind, or of any (""); -1
// if none does.
func (s *story) holder(ctx context.Context, kind string) (found int) {
	found = -1
	_ = s.config.Store.View(ctx, func(tx *store.Tx) error { // then none is known
		held, err := tx.Held(ctx, "several", 0)
		for i, c := range s.crew {
			for _, h := range held {
				if h.Owner == c.owner && (kind == "" || h.Kind == kind) {
					found = i
				}
			}
		}
		return err
	})
	return found
}

// wait lets time pass: it is what a schedule is made of.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lookEvery is how often the test looks whether a wish has come true: controllers
// write much more often.
const lookEvery = 250 * time.Millisecond

// granted waits until the wish has come true. An order that the CA refused, since
// nobody answered it, is asked for once more, as a person would.
func (s *story) granted(ctx context.Context) error {
	for {
		d, err := s.asker.Describe(ctx, "several", "shop")
		if err != nil {
			return err
		}
		if s.over(d) {
			return nil
		}
		failed := 0
		for _, o := range d.Orders {
			if o.State == farm.OrderFailed {
				failed++
			}
		}
		if failed > s.failed && d.Certificate.Intent == "" && len(d.Versions) < s.wished {
			s.failed = failed
			if err := s.asker.Renew(ctx, "several", "shop", "test"); err != nil {
				return err
			}
		}
		if err := wait(ctx, lookEvery); err != nil {
			return fmt.Errorf("wish %d: %w; it stood so: %s", s.wished, err, s.stands(d))
		}
	}
}

// over reports that the newest version is served everywhere and nothing is under way.
func (s *story) over(d controller.SiteDetail) bool {
	if len(d.Versions) != s.wished || d.Certificate.Intent != "" || len(d.Rollouts) == 0 || d.Rollouts[0].Outcome != farm.Done || d.Rollouts[0].To.ID != d.Versions[0].ID {
		return false
	}
	for _, p := range s.places {
		if p.seen().serves() != d.Versions[0].Leaves[0].Fingerprint {
			return false
		}
	}
	return true
}

// stands tells how things are, for a failure.
func (s *story) stands(d controller.SiteDetail) string {
	text := fmt.Sprintf("%d versions, intent %q, verdict %q, attention %q", len(d.Versions), d.Certificate.Intent, d.Certificate.Verdict, d.Attention)
	for i, p := range s.places {
		text += fmt.Sprintf("\n  place %d, %T, serves %s", i, p, p.seen().serves())
	}
	for _, o := range d.Orders {
		text += fmt.Sprintf("\n  order %s: %s %s", o.ID, o.State, o.Error)
	}
	for _, r := range d.Rollouts {
		text += fmt.Sprintf("\n  rollout %s of %s: %q %s", r.ID, r.To.ID, r.Outcome, r.Why)
		for _, t := range r.Steps {
			text += fmt.Sprintf("\n    %s is %s, doing %q: %s", t.Target, t.State, t.Doing, t.Error)
		}
	}
	_ = s.config.Store.View(s.t.Context(), func(tx *store.Tx) error { // it is only told
		jobs, err := tx.Jobs(s.t.Context(), "several", 0)
		for _, j := range jobs {
			text += fmt.Sprintf("\n  job %s %s in %s, owner %q, attempt %d: %s", j.Kind, j.Subject, j.RunAt.Sub(tx.Now()).Round(time.Millisecond), j.Owner, j.Attempt, j.Error)
		}
		return err
	})
	return text
}

// said is the end of what each controller wrote.
func (s *story) said() string {
	var text strings.Builder
	for i, c := range s.crew {
		c.mu.Lock()
		log := c.log.Bytes()
		fmt.Fprintf(&text, "controller %d:\n%s\n", i, log[max(0, len(log)-3000):])
		c.mu.Unlock()
	}
	return text.String()
}
