// Package drain takes a node out of the balancers in front of it while its
// certificate is changed or brought back, and puts it back when it was seen to serve the new one.
//
//	in ──Activate──▶ out, its connections end ──change──▶ its endpoints are asked ──▶ in
//	                  │                                        │ they serve neither the
//	                  │                                        ▼ new one nor the old one
//	                  │                                 out, until a later Activate, Restore,
//	                  ▼                                 Discard or PutBack sees it serve
//	       cut here: the ledger knows it, and whatever comes next goes on from there
//
// What holds at all times: a server is put back only by who took it out. What we
// take out is written to the ledger first, and struck from it last, so that a server
// which is out without being in the ledger is out by somebody's hand: it is left as
// it is. The last server of a backend that takes connections is not taken out. A node
// whose endpoints serve what they should is not left out.
package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/host"
)

// State is how a server stands in its balancer.
type State int

// The values of State.
const (
	In   State = iota // it takes connections
	Out               // it takes no new ones, as after Balancer.Out
	Held              // it takes none for another reason, such as maintenance
)

// A Balancer sends connections to one server, which is our node. Every call may be
// repeated.
type Balancer interface {
	// Name tells it from all others that a node has: "www/web1 of HAProxy on lb1".
	Name() string
	// State says how the server stands.
	State(ctx context.Context) (State, error)
	// Out ends new connections to it. It refuses to take out the last server that
	// takes any, and the server is as it was then.
	Out(ctx context.Context) error
	// Open counts the connections that it still has.
	Open(ctx context.Context) (int, error)
	// Back ends what Out began.
	Back(ctx context.Context) error
}

// A Server is our node in one balancer, and how long its connections may take to
// end. What is open after that meets the change as it would without a drain.
type Server struct {
	Balancer
	Wait time.Duration
}

// A Ledger is the names of the balancers that a node was taken out of, by us. It
// outlives the process.
type Ledger struct {
	Read  func(ctx context.Context) ([]string, error)
	Write func(ctx context.Context, names []string) error
}

// A Setup is what a Deployer is made of.
type Setup struct {
	Inner   deploy.Deployer
	Servers []Server
	Ledger  Ledger
	Look    deploy.Look // at the target's endpoints; nil: it has none, and the inner deployer's word is enough
}

// The bounds of what is done around a change.
const (
	lookTime  = 30 * time.Second // until the endpoints serve the new certificate, past the lag of the kind
	glance    = 3 * time.Second  // for a look at what they serve after a failure
	mendTime  = 15 * time.Second // for what is set right after the call's own time
	askTime   = time.Minute      // for the questions to all balancers
	openEvery = 200 * time.Millisecond
)

// Deployer is a deploy.Deployer that drains its node around Activate and Restore.
type Deployer struct{ s Setup }

// New makes one.
func New(s Setup) *Deployer { return &Deployer{s} }

// Unwrap is the inner deployer.
func (d *Deployer) Unwrap() deploy.Deployer { return d.s.Inner }

// around is what Stage notes of a target, in deploy.Receipt.Around.
type around struct {
	Leaves []string // fingerprints that were staged
	Before []string // and those that it held
}

// Inspect is the inner deployer's.
func (d *Deployer) Inspect(ctx context.Context) (deploy.Installed, error) {
	return d.s.Inner.Inspect(ctx)
}

// Stage asks every balancer how the server stands, so that one which does not answer
// is found before anything changes, and has the inner deployer stage.
func (d *Deployer) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	for _, b := range d.s.Servers {
		if _, err := b.State(ctx); err != nil {
			return deploy.Receipt{}, fmt.Errorf("asking the balancer for %s, before anything is changed: %w", b.Name(), err)
		}
	}
	var note around
	if in, err := d.s.Inner.Inspect(ctx); err == nil { // else it is for Stage to say what is wrong
		note.Before = in.Leaves
	}
	for _, b := range s.Bundles {
		note.Leaves = append(note.Leaves, b.Leaf)
	}
	r, err := d.s.Inner.Stage(ctx, s)
	if err != nil {
		return r, err
	}
	r.Wait += d.longest() + askTime
	if d.s.Look != nil {
		r.Wait += lookTime + r.Lag
	}
	r.Around, err = json.Marshal(note)
	return r, err
}

// Activate takes the node out, waits for its connections, changes it, and puts it
// back when its endpoints serve the first receipt's leaves: what is active with it
// was made so by the same reload.
func (d *Deployer) Activate(ctx context.Context, rs []deploy.Receipt) error {
	note, lag, err := first(rs)
	if err != nil {
		return err
	}
	if err := d.takeOut(ctx); err != nil {
		return d.setRight(ctx, note, err, true)
	}
	if err := d.s.Inner.Activate(ctx, rs); err != nil {
		refused := ctx.Err() == nil && !errors.Is(err, host.ErrUnreachable)
		return d.setRight(ctx, note, err, refused)
	}
	if err := d.look(ctx, lookTime+lag, note.Leaves); err != nil {
		return d.setRight(ctx, note, fmt.Errorf("it was changed, but %w", err), false)
	}
	return d.PutBack(ctx)
}

// Restore takes the node out as Activate does, has the inner deployer restore, and puts
// the node back when it serves what it did. A server that serves nothing of ours has no
// connections to wait for; and a balancer that refuses, or does not answer, holds up no
// way back: then it is restored where it stands.
func (d *Deployer) Restore(ctx context.Context, rs []deploy.Receipt) error {
	note, lag, err := first(rs)
	if err != nil {
		return err
	}
	if d.look(ctx, glance, slices.Concat(note.Leaves, note.Before)) == nil {
		within, cancel := context.WithTimeout(ctx, d.longest()+askTime)
		err = d.takeOut(within)
		cancel()
	}
	if failed := d.s.Inner.Restore(ctx, rs); failed != nil {
		return d.setRight(ctx, note, errors.Join(failed, err), false)
	}
	ours, err := d.s.Ledger.Read(ctx)
	if err != nil || len(ours) == 0 {
		return err
	}
	if err := d.look(ctx, lookTime+lag, note.Before); err != nil {
		return fmt.Errorf("it was put back, but %w; it stays out of %s", err, strings.Join(ours, ", "))
	}
	return d.PutBack(ctx)
}

// longest is the longest time that connections of a server have to end.
func (d *Deployer) longest() (longest time.Duration) {
	for _, b := range d.s.Servers {
		longest = max(longest, b.Wait)
	}
	return longest
}

// Discard has the inner deployer discard. A node that an activation left out is put
// back if it serves what it should: no other call may follow.
func (d *Deployer) Discard(ctx context.Context, r deploy.Receipt) error {
	if err := d.s.Inner.Discard(ctx, r); err != nil {
		return err
	}
	ours, err := d.s.Ledger.Read(ctx)
	if err != nil || len(ours) == 0 {
		return err
	}
	note, _, err := first([]deploy.Receipt{r})
	if err != nil {
		return err
	}
	if d.look(ctx, glance, slices.Concat(note.Leaves, note.Before)) == nil {
		return d.PutBack(ctx)
	}
	return nil // it stays out, and the ledger knows
}

// PutBack puts back every server that we took out and that the node still has; the
// ledger keeps the others. Who calls it has seen the node
// serve what it should.
func (d *Deployer) PutBack(ctx context.Context) error {
	ours, err := d.s.Ledger.Read(ctx)
	if err != nil || len(ours) == 0 {
		return err
	}
	for _, b := range d.s.Servers {
		if !slices.Contains(ours, b.Name()) {
			continue
		}
		if err := putBack(ctx, b); err != nil {
			return fmt.Errorf("putting %s back: %w", b.Name(), err)
		}
	}
	return d.s.Ledger.Write(ctx, d.strange(ours))
}

// strange lists what the ledger names and the node has no more: it cannot be put
// back there by us, and must not be forgotten either.
func (d *Deployer) strange(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(d.s.Servers, func(b Server) bool { return b.Name() == name })
	})
}

// putBack ends a drain and sees that it ended. A server that was put back already,
// or that somebody put under maintenance since, is left as it is.
func putBack(ctx context.Context, b Server) error {
	if s, err := b.State(ctx); err != nil || s != Out {
		return err
	}
	if err := b.Back(ctx); err != nil {
		return err
	}
	s, err := b.State(ctx)
	if err == nil && s == Out {
		err = errors.New("the balancer says yes, and it is still out")
	}
	return err
}

// takeOut drains every server that takes connections or that we had taken out
// before, and waits until they have none.
func (d *Deployer) takeOut(ctx context.Context) error {
	ours, err := d.s.Ledger.Read(ctx)
	if err != nil {
		return err
	}
	var taken []Server
	var names []string
	for _, b := range d.s.Servers {
		s, err := b.State(ctx)
		if err != nil {
			return fmt.Errorf("asking the balancer for %s: %w", b.Name(), err)
		}
		if s == In || s == Out && slices.Contains(ours, b.Name()) {
			taken, names = append(taken, b), append(names, b.Name())
		}
	}
	if len(taken) == 0 {
		return nil
	}
	if err := d.s.Ledger.Write(ctx, append(names, d.strange(ours)...)); err != nil {
		return err
	}
	for _, b := range taken {
		if err := b.Out(ctx); err != nil {
			return fmt.Errorf("taking %s out: %w", b.Name(), err)
		}
	}
	return emptied(ctx, taken)
}

// emptied waits until no server has connections, or its time is over. A balancer
// tells nobody, so it is asked.
func emptied(ctx context.Context, taken []Server) error {
	begin := time.Now()
	tick := time.NewTicker(openEvery)
	defer tick.Stop()
	for {
		var busy bool
		for _, b := range taken {
			n, err := b.Open(ctx)
			if err != nil {
				return fmt.Errorf("counting the connections of %s: %w", b.Name(), err)
			}
			busy = busy || n > 0 && time.Since(begin) < b.Wait
		}
		if !busy {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the last connections: %w", ctx.Err())
		}
	}
}

// setRight puts the node back after a failure: at once where it is as it was, else
// if its endpoints serve what they did or what they should. The error says if it
// stays out.
func (d *Deployer) setRight(ctx context.Context, note around, failure error, asItWas bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mendTime)
	defer cancel()
	if !asItWas {
		if d.s.Look == nil || d.look(ctx, glance, slices.Concat(note.Leaves, note.Before)) != nil {
			return d.stays(ctx, failure)
		}
	}
	if err := d.PutBack(ctx); err != nil {
		return fmt.Errorf("%w; and it could not be put back: %w", failure, err)
	}
	return failure
}

func (d *Deployer) stays(ctx context.Context, failure error) error {
	if ours, err := d.s.Ledger.Read(ctx); err == nil && len(ours) > 0 {
		return fmt.Errorf("%w; it stays out of %s until it is seen to serve", failure, strings.Join(ours, ", "))
	}
	return failure
}

// look asks the endpoints until they serve no other leaves than these, or the time
// is over.
func (d *Deployer) look(ctx context.Context, within time.Duration, leaves []string) error {
	if d.s.Look == nil || len(leaves) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return d.s.Look(ctx, "", leaves)
}

// first is the note of the first receipt; empty where it was staged before the node
// had balancers.
func first(rs []deploy.Receipt) (note around, lag time.Duration, err error) {
	if len(rs) == 0 || len(rs[0].Around) == 0 {
		return note, 0, nil
	}
	if err := json.Unmarshal(rs[0].Around, &note); err != nil {
		return note, 0, fmt.Errorf("what the receipt says of the drain: %w", err)
	}
	return note, rs[0].Lag, nil
}
