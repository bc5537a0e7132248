package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/probe"
)

// stage puts the version beside what is live. A node that cannot be reached is
// asked at its serving addresses: silent there too, it is absent.
func (c *Controller) stage(ctx context.Context, a act, answer *farm.Answer) error {
	if err := atHand(a.version, a.place.Target); err != nil {
		return err
	}
	bundles, err := c.bundles(a.version, a.keys)
	if err != nil {
		return err
	}
	if err := c.gate(ctx, a); err != nil {
		return err
	}
	if err := c.stranger(ctx, a, answer); err != nil {
		return err
	}
	tested, err := a.group.known()
	if err != nil {
		return err
	}
	err = c.open(ctx, &a)
	var r deploy.Receipt
	if err == nil {
		r, err = a.deployer.Stage(ctx, deploy.Stage{
			Site: a.Site, Names: a.version.Names, Bundles: bundles, Epoch: a.lease.Epoch, Tested: tested,
		})
	}
	a.group.learn(ctx, r, err)
	if err != nil {
		answer.Silent = errors.Is(err, host.ErrUnreachable) && c.silent(context.WithoutCancel(ctx), a)
		return err
	}
	answer.NoUndo, answer.Lag = r.NoUndo, max(r.Lag, a.place.Target.Lag)
	answer.Receipt, err = json.Marshal(r)
	return err
}

// silentWithin is how long a node that cannot be reached is waited for at its
// serving addresses.
const silentWithin = 3 * time.Second

// silent reports that none of the target's endpoints answers.
func (c *Controller) silent(ctx context.Context, a act) bool {
	ctx, cancel := context.WithTimeout(ctx, silentWithin)
	defer cancel()
	return probe.Silent(c.sights(ctx, a, nil, 1))
}

// verify sees that the version is installed and served: every endpoint, every
// leaf, trusted, for every name. It looks for a moment, since a reload takes one;
// after that the rollout decides when to look again.
func (c *Controller) verify(ctx context.Context, a act, answer *farm.Answer) error {
	if err := c.watch(ctx, a, answer, []farm.Version{a.version}); err != nil {
		return err
	}
	if err := c.open(ctx, &a); err != nil {
		return err
	}
	installed, err := a.deployer.Inspect(ctx)
	if err != nil {
		return err
	}
	if want := a.version.Fingerprints(); installed.Mismatch || !sameSet(installed.Leaves, want) {
		return fmt.Errorf("it serves the new certificate, but what is installed is %s", shorts(installed.Leaves))
	}
	return leftOut(ctx, a)
}

// The first looks follow each other closely: a reload takes a moment, and a
// night is short.
const (
	watchFor   = 2 * time.Second
	watchEvery = 50 * time.Millisecond
	samples    = 3 // handshakes a leaf
)

// watch looks until one of the versions is served by every endpoint, a version
// fault is seen twice, or the moment is over.
func (c *Controller) watch(ctx context.Context, a act, answer *farm.Answer, want []farm.Version) error {
	moment, cancel := context.WithTimeout(ctx, watchFor)
	defer cancel()
	until, _ := moment.Deadline() // a connection may end at it before the context says so
	var last error
	for {
		sights := c.sights(moment, a, want, samples)
		if last != nil && (moment.Err() != nil || !time.Now().Before(until)) {
			return last // a look that was cut short says less than the one before
		}
		err := judge(want, probe.Present(sights, a.place.Target.AbsentMax), c.Now())
		answer.Sights = sights
		if err == nil || faultOf(err) == farm.VersionFault && faultOf(last) == farm.VersionFault {
			return err
		}
		last = err
		select {
		case <-moment.Done():
			return err
		case <-time.After(watchEvery):
		}
	}
}

// faultOf is who is to blame for an error, as far as it says.
func faultOf(err error) farm.Fault {
	if f, ok := errors.AsType[*faultError](err); ok {
		return f.fault
	}
	return farm.NoFault
}

// judge says what is wrong with what is seen, measured against any of the
// versions that may be served.
func judge(want []farm.Version, sights []farm.Sight, now time.Time) error {
	var first error
	for _, v := range want {
		err := judgeOne(v, sights, now)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func judgeOne(v farm.Version, sights []farm.Sight, now time.Time) error {
	for _, s := range sights {
		if ok, fault, why := probe.Judge(v.Leaves, s, now); !ok {
			return &faultError{fault, why}
		}
	}
	return nil
}

// sights asks every endpoint of the act's target.
func (c *Controller) sights(ctx context.Context, a act, want []farm.Version, samples int) []farm.Sight {
	var types []farm.KeyType
	for _, v := range want {
		for _, l := range v.Leaves {
			if !slices.Contains(types, l.KeyType) {
				types = append(types, l.KeyType)
			}
		}
	}
	q := probe.Question{Target: a.step.Target, KeyTypes: types, Names: a.version.Names, Roots: a.roots, Samples: samples}
	ctx, end := c.Tracer.Part(ctx, "probe", slog.String("target", a.step.Target), slog.Int("endpoints", len(a.place.Target.Endpoints)))
	all := c.look(ctx, a.Farm, a.place.Target, q)
	end("", slog.Int("handshakes", handshakes(all)))
	return all
}

// endpointsAtOnce is how many endpoints of one target are asked at the same time: one
// that is switched off keeps who asks waiting, and the others must be seen meanwhile.
const endpointsAtOnce = 16

// look asks every endpoint of a target the same question.
func (c *Controller) look(ctx context.Context, farmName string, t farm.Target, q probe.Question) []farm.Sight {
	sights := make([]farm.Sight, len(t.Endpoints))
	slots := make(chan struct{}, endpointsAtOnce)
	var wg sync.WaitGroup
	for i, e := range t.Endpoints {
		slots <- struct{}{}
		wg.Go(func() {
			sights[i] = c.lookAt(ctx, farmName, t, e, q)
			<-slots
		})
	}
	wg.Wait()
	return sights
}

func (c *Controller) lookAt(ctx context.Context, farmName string, t farm.Target, e farm.Endpoint, q probe.Question) farm.Sight {
	unasked := func(err error) farm.Sight {
		return farm.Sight{Endpoint: e, Target: t.Name, At: c.Now(), Error: err.Error()}
	}
	q.Endpoint, q.Target = e, t.Name
	if e.Path == "ssh" {
		h, err := c.Host(ctx, farmName, t.Node)
		if err != nil {
			return unasked(err)
		}
		q.Through = h
	}
	s, err := c.Prober.Probe(ctx, q)
	if err != nil {
		return unasked(err)
	}
	return s
}

// restore puts one target back and sees that it serves what it served before.
func (c *Controller) restore(ctx context.Context, a act, answer *farm.Answer) error {
	if err := c.switchAll(ctx, farm.DoRestore, []act{a}); err != nil {
		return err
	}
	return c.restored(ctx, a, answer)
}

// restored sees that a target serves what it served before the rollout. Where
// that was nothing of ours, what is on the disk is all that can be said.
func (c *Controller) restored(ctx context.Context, a act, answer *farm.Answer) error {
	if len(a.from) == 0 {
		return nil
	}
	err := c.watch(ctx, a, answer, a.from)
	if err != nil {
		return fmt.Errorf("put back, but it does not serve what it did: %w", err)
	}
	return nil
}

// discard takes away what was staged.
func (c *Controller) discard(ctx context.Context, a act, _ *farm.Answer) error {
	var r deploy.Receipt
	if err := json.Unmarshal(a.step.Receipt, &r); err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	if err := c.open(ctx, &a); err != nil {
		return err
	}
	return a.deployer.Discard(ctx, r)
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func shorts(fingerprints []string) string {
	if len(fingerprints) == 0 {
		return "nothing"
	}
	var all []string
	for _, f := range fingerprints {
		all = append(all, farm.Short(f))
	}
	return strings.Join(all, ", ")
}
