package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfarm/certfarm/internal/deploy/remote"
)

// LoopSetup is what the agent's loop takes.
type LoopSetup struct {
	Identity *Identity
	State    string // folder of the identity and of answers that were not taken yet
	Answerer remote.Answerer
	Version  string
	Log      *slog.Logger     // nil: nothing is written
	Now      func() time.Time // nil: time.Now
	Pace     Pace
}

// Pace is how long the loop waits. The zero value is how it is in production.
type Pace struct {
	First  time.Duration // after the first failure, at most; doubled each time; 0: 1 s
	Most   time.Duration // at most; 0: 15 s
	Turned time.Duration // after being turned away; 0: 1 min
	Grace  time.Duration // at the end, for answers that are not taken yet; 0: 5 s
	Look   time.Duration // readiness: between handshakes, however often it is asked; 0: 2 s
}

// atOnce bounds the calls that are done side by side. Calls of one lane come one after
// another anyway, and the answerer has a lock of its own.
const atOnce = 8

// A Loop asks the controllers what is to be done, does it, and brings the answers.
//
//	poll ─▶ calls ─▶ answerer ─▶ outbox (on disk) ─▶ the controllers, until taken
//
// With the controllers gone it ends what it has begun, begins nothing that it was only
// given, and keeps the answers.
type Loop struct {
	s       LoopSetup
	session string
	count   int64 // of polls; the poller's own
	outbox  *outbox
	slots   chan struct{}
	work    sync.WaitGroup
	lines   atomic.Pointer[lines]
	cut     atomic.Int64 // how often the controllers were lost
	renewal sync.Mutex

	mu   sync.Mutex
	have map[string]bool // calls in hand: begun, or answered and not taken
}

// lines are the ways to the controllers with one certificate.
type lines struct {
	all []*line
	at  atomic.Int64 // the one that answered last
}

// NewLoop makes a loop; Run starts it.
func NewLoop(s LoopSetup) (*Loop, error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	s.Pace.First, s.Pace.Most = cmp.Or(s.Pace.First, time.Second), cmp.Or(s.Pace.Most, 15*time.Second)
	s.Pace.Turned, s.Pace.Grace = cmp.Or(s.Pace.Turned, time.Minute), cmp.Or(s.Pace.Grace, 5*time.Second)
	s.Pace.Look = cmp.Or(s.Pace.Look, 2*time.Second)
	l := &Loop{s: s, session: newSession(), slots: make(chan struct{}, atOnce), have: map[string]bool{}}
	var err error
	if l.outbox, err = openOutbox(s.State); err != nil {
		return nil, err
	}
	for _, id := range l.outbox.waiting() {
		l.have[id] = true
	}
	return l, l.connect()
}

// connect makes the lines anew, with the certificate that the agent has now.
func (l *Loop) connect() error {
	next := &lines{}
	for _, server := range l.s.Identity.Servers {
		one, err := newLine(server, l.s.Identity.Pins, &l.s.Identity.tls, l.s.Now)
		if err != nil {
			return err
		}
		next.all = append(next.all, one)
	}
	if len(next.all) == 0 {
		return errors.New("no controller is named: join again, or say --server")
	}
	if old := l.lines.Swap(next); old != nil {
		next.at.Store(old.at.Load())
		old.close()
	}
	return nil
}

func (s *lines) close() {
	for _, one := range s.all {
		one.close()
	}
}

// ask asks the controller that answered last. One that does not answer is passed by
// the next time.
func (l *Loop) ask(ctx context.Context, within time.Duration, method, path string, body, into any) error {
	s := l.lines.Load()
	at := s.at.Load()
	err := s.all[int(at)%len(s.all)].ask(ctx, within, method, path, body, into)
	if _, refused := errors.AsType[*Refused](err); err != nil && ctx.Err() == nil && (!refused || refusedAs(err, KindFailed)) {
		s.at.CompareAndSwap(at, at+1)
	}
	return err
}

// Run asks and does until ctx ends; then it ends what it has begun, within that work's
// own deadline, and tries for a moment to bring the answers.
func (l *Loop) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { l.pollAll(ctx) })
	parts.Go(func() { l.renewAll(ctx) })
	parts.Go(func() { l.bringAll(ctx) })
	<-ctx.Done()
	parts.Wait()
	l.work.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.s.Pace.Grace)
	defer cancel()
	for _, id := range l.outbox.waiting() {
		if l.bring(last, id) != nil {
			break // they are brought at the next start
		}
	}
	l.lines.Load().close()
	return nil
}

// pollAll asks for calls, one question after the other.
func (l *Loop) pollAll(ctx context.Context) {
	pause := backoff{first: l.s.Pace.First, most: l.s.Pace.Most}
	said := ""
	for ctx.Err() == nil {
		var got Calls
		l.count++
		err := l.ask(ctx, pollWithin, http.MethodPost, PathCalls, Poll{Session: l.session, Count: l.count, Version: l.s.Version, At: l.s.Now(), Have: l.inHand()}, &got)
		switch {
		case err == nil:
			if said != "" {
				l.s.Log.Info("the controllers answer again")
			}
			said = ""
			pause.reset()
			for _, raw := range got.Calls {
				l.begin(ctx, raw)
			}
			continue
		case ctx.Err() != nil:
			return
		case refusedAs(err, KindExpired):
			err = l.renew(ctx)
		}
		l.cut.Add(1)
		if err == nil {
			continue
		}
		if err.Error() != said { // once, and not every few seconds
			said = err.Error()
			l.s.Log.Warn("ask for work", "error", said)
		}
		wait := pause.next()
		if refusedAs(err, KindUnknown, KindAway) {
			wait = jitter(l.s.Pace.Turned)
		}
		rest(ctx, wait)
	}
}

// inHand lists the calls that need not be sent again.
func (l *Loop) inHand() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]string, 0, len(l.have))
	for id := range l.have {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

// take notes that a call is in hand; it reports whether it was not yet.
func (l *Loop) take(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.have[id] {
		return false
	}
	l.have[id] = true
	return true
}

func (l *Loop) drop(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.have, id)
}

// begin does a call, beside others. One that has to wait for its turn is not begun any
// more when the controllers were lost meanwhile: they may have given it up.
func (l *Loop) begin(ctx context.Context, raw json.RawMessage) {
	call, err := remote.Open(raw)
	if err != nil {
		l.s.Log.Warn("a call cannot be read: are the controllers newer?", "error", err)
		return
	}
	if !l.take(call.ID) {
		return
	}
	given := l.cut.Load()
	l.work.Go(func() {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			l.drop(call.ID)
			return
		}
		defer func() { <-l.slots }()
		if l.cut.Load() != given || ctx.Err() != nil {
			l.drop(call.ID)
			return
		}
		answer := l.s.Answerer.Answer(ctx, call)
		answer.ID = call.ID
		if err := l.outbox.put(answer); err != nil {
			l.s.Log.Error("keep an answer", "call", call.ID, "error", err)
			l.drop(call.ID) // it comes again, and is answered as it was
		}
	})
}

// bringAll brings answers until ctx ends.
func (l *Loop) bringAll(ctx context.Context) {
	pause := backoff{first: l.s.Pace.First, most: l.s.Pace.Most}
	for ctx.Err() == nil {
		failed := false
		for _, id := range l.outbox.waiting() {
			if err := l.bring(ctx, id); err != nil {
				failed = true
				l.s.Log.Debug("bring an answer", "call", id, "error", err)
				break
			}
		}
		if failed {
			rest(ctx, pause.next())
			continue
		}
		pause.reset()
		select {
		case <-ctx.Done():
		case <-l.outbox.filled:
		}
	}
}

// bring brings one answer. One for which nobody waits any longer is thrown away.
func (l *Loop) bring(ctx context.Context, id string) error {
	text, err := l.outbox.read(id)
	if err == nil {
		err = l.ask(ctx, askWithin, http.MethodPost, PathCalls+"/"+id, text, nil)
	}
	if err != nil && !refusedAs(err, KindGone, KindWrong) {
		return err
	}
	l.outbox.remove(id)
	l.drop(id)
	return nil
}

// renewAll renews the certificate at half its life, until ctx ends.
func (l *Loop) renewAll(ctx context.Context) {
	pause := backoff{first: time.Minute, most: 10 * time.Minute}
	for ctx.Err() == nil {
		l.renewal.Lock()
		wait := l.s.Identity.Half.Sub(l.s.Now())
		l.renewal.Unlock()
		if wait > 0 {
			pause.reset()
			rest(ctx, min(wait, time.Hour)) // the machine may have slept
			continue
		}
		if err := l.renew(ctx); err != nil && ctx.Err() == nil {
			l.s.Log.Warn("renew the agent's certificate", "error", err)
			rest(ctx, pause.next())
		}
	}
}

// renew gets a new certificate for the same key, and goes on with that.
func (l *Loop) renew(ctx context.Context) error {
	l.renewal.Lock()
	defer l.renewal.Unlock()
	csr, err := requestFor(l.s.Identity.key)
	if err != nil {
		return err
	}
	var got Joined
	if err := l.ask(ctx, askWithin, http.MethodPost, PathRenew, Renew{CSR: csr, Learns: true}, &got); err != nil {
		return err
	}
	if err := l.s.Identity.take(got.Chain); err != nil {
		return err
	}
	l.s.Identity.learn(got.Pins)
	l.s.Log.Info("the agent's certificate is renewed", "until", l.s.Identity.Until)
	return errors.Join(l.s.Identity.Save(l.s.State), l.connect())
}

// A backoff is a pause that grows; each is drawn between half of it and all, so that a
// thousand agents do not come back in one moment.
type backoff struct{ first, most, now time.Duration }

func (b *backoff) next() time.Duration {
	b.now = min(max(2*b.now, b.first), b.most)
	return jitter(b.now)
}

func (b *backoff) reset() { b.now = 0 }

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
