// Package crash kills the controller, again and again, and looks at what is left.
//
// A story is told once without a death. That run says by itself which steps it
// takes: every transaction, every change on a node, every request to the CA.
// Then it is told once more for each of them, on a farm of its own, with a
// controller that dies just before the step, or just after it and before it
// heard of it; another controller starts on the same store, and the story must
// end as it did without a death. What must be true then is in check_test.go.
package crash

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/lab"
)

// soak asks for more stories, and for every point of each. Otherwise those are left
// out at which the world is the same as at the point before.
var soak = os.Getenv("CERTFARM_SOAK") != ""

// only is the one point to die at, as a failure names it.
var only = os.Getenv("CERTFARM_POINT")

const (
	sample = 12 // points of a story under the race detector
	few    = 12 // points of a story for which each telling takes a farm of its own
)

func TestADeathAtAnyPoint(t *testing.T) {
	stories := []story{first, back}
	if soak {
		stories = append(stories, unstaged, refused, revived)
	}
	if !raced || soak {
		stories = append(stories, fled)
	}
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) { s.everyPoint(t) })
	}
}

// Under the race detector only some points are met here; all are in a test binary
// without it.
func TestEveryPointWithoutTheRaceDetector(t *testing.T) {
	if !raced || soak {
		t.Skip("not for a run without the race detector: TestADeathAtAnyPoint meets every point by itself")
	}
	c := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-vet=off", "-timeout=20m", "-v", "-run=^TestADeathAtAnyPoint$", ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// atOnce is how many farms there are at one time: most of a telling is waiting,
// but for the race detector.
func atOnce() int {
	if raced {
		return 3
	}
	return 12
}

func (s story) everyPoint(t *testing.T) {
	began := time.Now()
	golden := newFarm(t)
	err := golden.tell(t.Context(), s, point{})
	golden.end(t)
	if err != nil {
		t.Fatalf("without a death: %v", err)
	}
	all, points := golden.life.points(true), golden.life.points(soak)
	if s.begins == nil || s.fault == lab.BadReload { // the others do not take every sort of step
		sees(t, all)
	}
	different := len(golden.life.points(false))
	switch {
	case soak:
	case raced:
		points = some(t, points, sample)
	case s.flees:
		points = some(t, points, few)
	}
	if only != "" {
		points = named(all)
	}
	var missed, denied atomic.Int64
	var workers sync.WaitGroup
	next := make(chan point)
	for range min(atOnce(), len(points)) {
		workers.Go(func() {
			r := newFarm(t)
			for p := range next {
				r = s.once(t, r, p)
				denied.Add(int64(r.failed))
				if r.lives == 1 {
					missed.Add(1)
				}
			}
			r.end(t)
		})
	}
	for _, p := range points {
		next <- p
	}
	close(next)
	workers.Wait()
	t.Logf("%d points; at %d of them the world is another than at the one before; %d deaths, %d of them not met; %d orders failed since nobody answered the CA; %s",
		len(all), different, len(points), missed.Load(), denied.Load(), time.Since(began).Round(time.Second))
	if most := int64(3 + len(points)/10); missed.Load() > most {
		t.Errorf("%d points of the first telling were not met again, want at most %d", missed.Load(), most)
	}
}

// once tells the story with one death, on a farm that it may go on using, and
// returns the farm for the next.
func (s story) once(t *testing.T, r *run, p point) *run {
	if r.lab != nil && (s.begins == nil || s.flees) || r.spoiled {
		r.end(t)
		r = newFarm(t)
	}
	if err := r.tell(t.Context(), s, p); err != nil {
		t.Errorf("death %s: %v", p, err)
		r.spoiled = true
	}
	return r
}

// sees holds that the points are those of all that lasts: a part that is not
// watched would pass every test.
func sees(t *testing.T, all []point) {
	for _, part := range []string{"store controller.", "store job.claim", "store job.finish", "solver ", "ca ", "web1 link", "web2 link", "web1 write", "web2 run", "notify"} {
		found := 0
		for _, p := range all {
			if p.moment == after && strings.HasPrefix(p.step, part) {
				found++
			}
		}
		if found == 0 {
			t.Errorf("no step of %q was seen", part)
		}
	}
}

// some takes a few points by chance.
func some(t *testing.T, points []point, most int) []point {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	chance.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	return points[:min(most, len(points))]
}

func named(all []point) (points []point) {
	for _, p := range all {
		if p.String() == only {
			points = append(points, p)
		}
	}
	return points
}

// newFarm makes a run on a farm of its own, which does not stand yet.
func newFarm(t *testing.T) *run { return &run{dir: t.TempDir()} }

// end takes a farm down.
func (r *run) end(t *testing.T) {
	if err := r.close(); err != nil {
		t.Errorf("taking a farm down: %v", err)
	}
}
