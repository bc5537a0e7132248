// Package agent is the node's half of Certfarm: what answers the controllers' calls
// on the node itself, by its agent or behind its SSH server.
//
//	agent ─┐                                            ┌─ the kind's own Deployer ─ fence.Host ─ the machine
//	       ├─▶ Answerer ─▶ lock, policy, epoch (fence) ─┤
//	receive┘                                            └─ keys that were made here
//
// What holds at all times: nothing is done that the node's policy does not allow, or
// that an earlier epoch wants; what was begun is ended here, under its own deadline,
// also when nobody waits for the answer any more.
package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/fence"
)

// An AnswererSetup is what an Answerer is made of.
type AnswererSetup struct {
	Kinds  deploy.Kinds
	Host   fence.Linked // this machine
	Policy func() (fence.Policy, error)
	State  string           // folder of what is remembered, for this process's user alone
	Log    *slog.Logger     // nil: nothing is written
	Now    func() time.Time // nil: time.Now
	// Links reads symlinks, where Host has faults that are not to be met so; nil: Host.
	Links interface {
		Readlink(ctx context.Context, name string) (string, error)
	}
}

// DefaultState is where a node keeps what it remembers. It is not the folder of
// versions, which calls write to.
func DefaultState() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("ProgramData"), "certfarm-node")
	}
	return "/var/lib/certfarm-node"
}

// An Answerer does what a node is called for, as far as its policy allows. Any number
// of processes may answer on one node: one change is made at a time.
type Answerer struct {
	s       AnswererSetup
	book    *fence.Book
	receipt receipts
}

// NewAnswerer opens what the node remembers, or begins it.
func NewAnswerer(s AnswererSetup) (*Answerer, error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	book, err := fence.NewBook(s.State)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(s.State, keysFolder), 0o700); err != nil {
		return nil, fmt.Errorf("the folder of this node's keys: %w", err)
	}
	key, err := receiptKey(s.State)
	if err != nil {
		return nil, err
	}
	return &Answerer{s, book, receipts{key}}, nil
}

// Answer does a call; see remote.Answerer. The end of ctx ends no call that has begun:
// its deadline does.
func (a *Answerer) Answer(ctx context.Context, c remote.Call) remote.Answer {
	began := a.s.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(max(c.Deadline, 0), remote.MaxWork))
	defer cancel()
	answer, err := a.answer(ctx, c)
	if err != nil {
		answer = answered(err)
	}
	answer.ID, answer.At = c.ID, a.s.Now()
	log := a.s.Log.With("call", c.ID, "do", string(c.Do), "controller", c.Lease.Owner, "rollout", c.Lease.Rollout, "target", c.Target, "kind", c.Kind, "epoch", c.Lease.Epoch)
	r, refused := errors.AsType[*fence.Refusal](err)
	switch {
	case refused:
		log.Warn("refused", "why", r.Error(), "alarm", r.Alarm)
	case answer.Error != "":
		log.Warn("failed", "why", answer.Error, "took", a.s.Now().Sub(began).Round(time.Millisecond))
	default:
		log.Info("done", "took", a.s.Now().Sub(began).Round(time.Millisecond))
	}
	return answer
}

// answered is what the caller hears of an error.
func answered(err error) remote.Answer {
	a := remote.Answer{Error: err.Error(), Class: remote.ClassOf(err)}
	if errors.Is(err, errNoKey) {
		a.Class = remote.NoKey
	}
	if errors.Is(err, errUnheard) {
		a.Class = remote.Unheard
	}
	if r, ok := errors.AsType[*fence.Refusal](err); ok {
		a.Class, a.Epoch = map[fence.Class]remote.Class{fence.Outside: remote.Denied, fence.Stale: remote.Stale, fence.Early: remote.TooEarly}[r.Class], r.Epoch
	}
	return a
}

// errUnheard says that a call is not one that this node understands.
var errUnheard = errors.New("the call is not understood")

func (a *Answerer) answer(ctx context.Context, c remote.Call) (remote.Answer, error) {
	text, err := remote.Seal(c)
	if err != nil {
		return remote.Answer{}, fmt.Errorf("%w: %w", errUnheard, err)
	}
	policy, err := a.policy()
	if err != nil {
		return remote.Answer{}, err
	}
	sum := sha256.Sum256(text)
	w := &work{Answerer: a, call: c, policy: policy, sum: hex.EncodeToString(sum[:])}
	if err := w.understand(); err != nil {
		return remote.Answer{}, err
	}
	if !c.Do.Changes() {
		if err := policy.Allow(w.ask, &fence.Memory{}, a.s.Now()); err != nil {
			return remote.Answer{}, err
		}
		return w.safely(ctx)
	}
	return w.once(ctx)
}

// policy reads what may be done here. What this node remembers must lie where no call
// can write.
func (a *Answerer) policy() (fence.Policy, error) {
	p, err := a.s.Policy()
	if err != nil {
		return p, &fence.Refusal{Why: err.Error()}
	}
	inside, err := p.Covers(a.s.State)
	if err != nil {
		return p, fmt.Errorf("the state folder: %w", err)
	}
	if inside {
		return p, &fence.Refusal{Why: "the state folder " + a.s.State + " lies in a folder of the policy, so that a call could change what is remembered: move one of them"}
	}
	return p, nil
}

// once does a call that changes something, under the node's lock.
func (w *work) once(ctx context.Context) (remote.Answer, error) {
	page, err := w.book.Open(ctx)
	if err != nil {
		return remote.Answer{}, err
	}
	defer page.Close()
	if before, known, same := page.Answered(w.call.ID, w.sum); known {
		var answer remote.Answer
		if !same {
			return answer, &fence.Refusal{Why: "another call had this id", Alarm: true}
		}
		return answer, json.Unmarshal(before, &answer)
	}
	now := w.s.Now()
	if err := w.policy.Allow(w.ask, &page.Memory, now); err != nil {
		return remote.Answer{}, err
	}
	page.Begin(w.ask, now)
	if err := page.Save(); err != nil {
		return remote.Answer{}, err
	}
	w.kept = page.Kept
	answer, failed := w.safely(ctx)
	if failed != nil {
		answer = answered(failed)
	}
	answer.ID = w.call.ID
	if text, err := remote.SealAnswer(answer); err == nil {
		page.End(w.ask, text, failed == nil)
	}
	return answer, errors.Join(failed, page.Save())
}

// safely does it, and makes an error of a panic: a node must not be stopped by a call.
func (w *work) safely(ctx context.Context) (a remote.Answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			w.s.Log.Error("panic", "call", w.call.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("a mistake in the program stopped it: %v", p)
		}
	}()
	return w.do(ctx)
}

// do does one verb.
func (w *work) do(ctx context.Context) (a remote.Answer, err error) {
	c := w.call
	switch {
	case c.Do == remote.DoRequest:
		a.CSR, a.Key, err = w.makeKey(c.Names, c.KeyType)
		return a, err
	case c.Do == remote.DoForget:
		return a, w.forget(c.Keys)
	case c.Kind == "":
		return a, nil // it only shows that somebody is here
	}
	d, err := w.s.Kinds.Open(c.Kind, c.Options, deploy.Setup{
		Host: fence.Host{Linked: w.s.Host, Policy: w.policy, Links: w.s.Links, Refused: w.tell}, Secrets: c.Secrets, Lease: c.Lease, Command: w.command,
	})
	if err != nil {
		return a, err
	}
	switch c.Do {
	case remote.DoInspect:
		a.Installed, err = d.Inspect(ctx)
	case remote.DoStage:
		a.Receipt, err = w.stage(ctx, d)
	case remote.DoActivate:
		err = d.Activate(ctx, w.notes)
	case remote.DoRestore:
		err = d.Restore(ctx, w.notes)
	case remote.DoDiscard:
		for _, r := range w.notes {
			err = errors.Join(err, d.Discard(ctx, r))
		}
	case remote.DoRequest, remote.DoForget:
	}
	return a, err
}

// tell writes down what a deployer was refused, whatever it makes of it.
func (w *work) tell(err error) {
	w.s.Log.Warn("refused", "call", w.call.ID, "do", string(w.call.Do), "controller", w.call.Lease.Owner, "why", err.Error())
}

// command is one of the policy's, by its name: the controllers' list is not this node's.
func (w *work) command(name string) ([]string, error) {
	if argv := w.policy.Commands[name]; len(argv) > 0 {
		return argv, nil
	}
	return nil, &fence.Refusal{Why: fmt.Sprintf("no command %.100q is on this node's list", name), Add: fmt.Sprintf("commands: {%.100q: [/full/path, word]}", name)}
}

// stage puts a version there, with the keys that this node holds, and signs the
// receipt.
func (w *work) stage(ctx context.Context, d deploy.Deployer) (deploy.Receipt, error) {
	s := w.call.Stage
	for i, b := range s.Bundles {
		if !b.Key.IsZero() {
			continue
		}
		var err error
		if s.Bundles[i].Key, err = w.key(b.Chain); err != nil {
			return deploy.Receipt{}, err
		}
	}
	r, err := d.Stage(ctx, s)
	if err != nil {
		return r, err
	}
	r.Note, err = w.receipt.sign(note{Kind: w.call.Kind, Node: w.call.Node, Oldest: w.ask.Oldest, Before: w.before(), Note: r.Note})
	return r, err
}

// before is what is kept at the places of a call.
func (w *work) before() map[string]time.Time {
	all := map[string]time.Time{}
	for _, p := range w.ask.Places {
		all[p] = w.kept[p]
	}
	return all
}
