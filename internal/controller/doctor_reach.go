package controller

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

const (
	askedAtOnce = 32               // nodes, targets and CAs that a checkup asks at one time
	askedWithin = 15 * time.Second // one of them
	reachWithin = 2 * time.Minute  // all of them
)

// An inquiry is one thing that a checkup asks for over the network.
type inquiry struct {
	area, name, hint string
	ask              func(context.Context) (heard, error)
}

// heard is what one answered.
type heard struct {
	saw   string
	clock *time.Duration // how far its clock is ahead of ours; nil: it is not known
}

// reach asks every node, every target that is on none, and every CA.
func (c *Controller) reach(ctx context.Context, w chart) []CheckupResult {
	f := w.farm
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	var all []inquiry
	for _, n := range f.Nodes {
		all = append(all, inquiry{"node", n.Name, "the line is what every change on it goes over: see its address, user, key and host key in farm.yaml", func(ctx context.Context) (heard, error) {
			return c.reachNode(ctx, f.Name, n)
		}})
	}
	for _, p := range w.places {
		if p.Target.Node != "" || p.Released {
			continue
		}
		all = append(all, inquiry{"target", p.Target.Name, "`certfarm target test " + p.Target.Name + "` tries each step of it", func(ctx context.Context) (h heard, err error) {
			h.saw, err = c.reachTarget(ctx, f.Name, p.Target)
			return h, err
		}})
	}
	for _, i := range f.Issuers {
		all = append(all, inquiry{"issuer", i.Name, "orders there wait: see its status page, and the proxy and the firewall before the controller", func(ctx context.Context) (h heard, err error) {
			h.saw, err = c.reachIssuer(ctx, f, i)
			return h, err
		}})
	}
	results := askAll(ctx, all)
	for i, r := range results {
		if a, ok := w.held[r.Name]; ok && r.Area == "issuer" && r.Verdict == CheckupOK {
			results[i].Verdict, results[i].Saw = CheckupWarning, "nothing is sent until "+a.HoldUntil.UTC().Format("2006-01-02 15:04 MST")+": "+a.HoldWhy
			results[i].Hint = "`certfarm events` has what led to it"
		}
	}
	return results
}

// askAll asks some at a time; the answers are in the order of the questions.
func askAll(ctx context.Context, all []inquiry) []CheckupResult {
	results := make([]CheckupResult, len(all))
	turns := make(chan struct{}, askedAtOnce)
	var asking sync.WaitGroup
	for i, q := range all {
		turns <- struct{}{}
		asking.Go(func() {
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(ctx, askedWithin)
			defer cancel()
			began := time.Now()
			h, err := q.ask(ctx)
			results[i] = q.result(h, err, time.Since(began))
		})
	}
	asking.Wait()
	return results
}

// result is what a checkup says of an answer.
func (q inquiry) result(h heard, err error, took time.Duration) CheckupResult {
	if err != nil {
		return CheckupResult{q.area, q.name, CheckupFailed, err.Error(), q.hint}
	}
	r := CheckupResult{Area: q.area, Name: q.name, Verdict: CheckupOK, Saw: fmt.Sprintf("%s in %s", h.saw, took.Round(time.Millisecond))}
	switch {
	case h.clock == nil:
	case h.clock.Abs() > skewTold:
		r.Verdict, r.Hint = CheckupWarning, "let NTP set both clocks: a server whose clock is wrong may refuse a certificate as not valid yet"
		r.Saw += fmt.Sprintf("; its clock is %s %s ours", h.clock.Abs(), aheadOf(*h.clock))
	default:
		r.Saw += "; its clock is right"
	}
	return r
}

// reachNode opens the line to a node, lists its root, which every login may, and asks
// for its clock.
func (c *Controller) reachNode(ctx context.Context, farmName string, n farm.Node) (heard, error) {
	if decides(n) {
		return c.reachOwn(ctx, farmName, n)
	}
	h, err := c.Host(ctx, farmName, n.Name)
	if err != nil {
		return heard{}, err
	}
	root := "/"
	if n.SMB == nil && n.Shell != "" && n.Shell != "posix" {
		root = "C:/"
	}
	_, err = h.List(ctx, root)
	if err = except(err, fs.ErrNotExist, fs.ErrPermission); err != nil { // else it was reached, and said no
		return heard{}, err
	}
	return heard{"answered", clockOf(ctx, n, h)}, nil
}

// reachTarget has the deployer of a target look at what is there.
func (c *Controller) reachTarget(ctx context.Context, farmName string, t farm.Target) (string, error) {
	d, err := c.deployer(ctx, farmName, t, deploy.Lease{})
	if err != nil {
		return "", err
	}
	held, err := d.Inspect(ctx)
	return fmt.Sprintf("holds %d leaves, seen", len(held.Leaves)), err
}

// reachIssuer fetches a CA's directory, by a client of its own that knows nothing
// yet. Its key is thrown away: no account is made.
func (c *Controller) reachIssuer(ctx context.Context, f farm.Farm, i farm.Issuer) (string, error) {
	key, err := issue.NewKey(farm.EC256)
	if err != nil {
		return "", err
	}
	text, err := issue.EncodeKey(key)
	if err != nil {
		return "", err
	}
	a, err := c.Issuers(ctx, IssuerConfig{Issuer: i, Proxy: f.Proxy, AccountKey: text})
	if err != nil {
		return "", err
	}
	_, err = a.Identities(ctx)
	return "its directory came", err
}

// except is an error unless it is one of those that are no failure here.
func except(err error, fine ...error) error {
	for _, f := range fine {
		if errors.Is(err, f) {
			return nil
		}
	}
	return err
}
