package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// errCrashed is what everything answers once the controller is dead.
var errCrashed = errors.New("the controller is dead")

// A moment is when a controller dies, as against a step: just before the step
// is taken, or when it has taken effect and nobody heard of it yet.
type moment bool

const (
	before moment = false
	after  moment = true
)

func (m moment) String() string {
	if m == after {
		return "after"
	}
	return "before"
}

// A point is a moment of a run that the run found by itself: before or after
// the nth time that a step of this name was taken.
type point struct {
	moment
	step string
	nth  int
}

func (p point) String() string { return fmt.Sprintf("%s %s #%d", p.moment, p.step, p.nth) }

// A life is one controller process, from its start to its death. Every step
// that lasts (a transaction, a change on a node, a request to the CA) passes
// through it. When its point is reached it dies, and from then on nothing that
// belongs to it has an effect.
type life struct {
	strike point         // where it dies; the zero point: nowhere
	dead   chan struct{} // closed by its death

	mu      sync.Mutex
	struck  bool
	taken   map[string]int
	flight  map[string]bool // steps that began and have not ended
	ended   int             // steps that have
	reached []arrival       // in order
}

// An arrival is a point that was reached, and how the world stood then: which
// steps had been taken and which were being taken.
type arrival struct {
	point
	world string
}

func newLife(strike point) *life {
	return &life{strike: strike, dead: make(chan struct{}), taken: map[string]int{}, flight: map[string]bool{}}
}

// died reports whether the life has ended by its strike.
func (l *life) died() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.struck
}

// alive is for what changes nothing: it only fails in a dead controller.
func (l *life) alive() error {
	if l.died() {
		return errCrashed
	}
	return nil
}

// arrive notes, under the lock, that a point is reached, and dies there if that
// was meant.
func (l *life) arrive(p point) error {
	if l.struck {
		return errCrashed
	}
	flying := slices.Sorted(maps.Keys(l.flight))
	l.reached = append(l.reached, arrival{p, fmt.Sprint(l.ended, flying)})
	if p == l.strike {
		l.struck = true
		close(l.dead)
		return errCrashed
	}
	return nil
}

// begin is the point before a step; it says which time it is. Lasts says that the
// step has an effect.
func (l *life) begin(step string, lasts bool) (nth int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.struck {
		return 0, errCrashed
	}
	l.taken[step]++
	p := point{before, step, l.taken[step]}
	err = l.arrive(p)
	if lasts && err == nil {
		l.flight[p.String()] = true
	}
	return p.nth, err
}

// end is the point after a step.
func (l *life) end(step string, nth int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flight, point{before, step, nth}.String())
	l.ended++
	return l.arrive(point{after, step, nth})
}

// effect takes a step that changes something outside.
func effect[T any](l *life, step string, do func() (T, error)) (T, error) {
	var none T
	nth, err := l.begin(step, true)
	if err != nil {
		return none, err
	}
	v, failed := do()
	if err := l.end(step, nth); err != nil {
		return none, err
	}
	return v, failed
}

// read takes a step that changes nothing. Between it and the step before it the
// world is the same, so it is one point and not two.
func read[T any](l *life, step string, do func() (T, error)) (T, error) {
	var none T
	if _, err := l.begin(step, false); err != nil {
		return none, err
	}
	v, failed := do()
	if err := l.alive(); err != nil {
		return none, err
	}
	return v, failed
}

// has reports whether the life came past a point of the step.
func (l *life) has(m moment, step string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.reached, func(a arrival) bool { return a.moment == m && a.step == step })
}

// points lists what was reached, in order. Of those between which nothing began
// and nothing ended the world is the same, and so is a death: without all, only
// the first of them is listed.
func (l *life) points(all bool) (points []point) {
	l.mu.Lock()
	defer l.mu.Unlock()
	world := ""
	for _, a := range l.reached {
		if all || a.world != world {
			points = append(points, a.point)
		}
		world = a.world
	}
	return points
}

// observe is a store's Observe: each transaction that may write is a step, known
// by who began it. Transactions come one at a time in SQLite, so "commit" is of
// the last "begin" of the same name.
func (l *life) observe(_ context.Context, at string) error {
	step := "store " + writer()
	if at == "begin" {
		_, err := l.begin(step, true)
		return err
	}
	l.mu.Lock()
	nth := l.taken[step]
	l.mu.Unlock()
	return l.end(step, nth)
}

// writer names the function that asked the store to write.
func writer() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		_, name, ours := strings.Cut(f.Function, "/internal/")
		if ours && !strings.HasPrefix(name, "store.") && !strings.HasPrefix(name, "crash.") {
			return strings.NewReplacer("(*Controller).", "", "(*crew).", "").Replace(name)
		}
		if !more {
			return "by somebody else"
		}
	}
}
