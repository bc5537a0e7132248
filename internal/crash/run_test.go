package crash

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// A run is one telling of a story on a farm of its own.
type run struct {
	dir   string
	story story
	lab   *lab.Lab
	line  line
	life  *life
	store *store.Store
	keys  *secret.Keyring

	database string // SQLite's file

	lives   int             // in the story
	wishes  int             // of versions, in the story
	spoiled bool            // a telling on it went wrong
	asked   bool            // the wish is kept; whoever wished need not know it
	had     []farm.Version  // when the story began
	before  []farm.Version  // in the picture
	oldPair []byte          // what the first node served when the story began, with its key
	failed  int             // orders that the CA refused since the controller was dead when it looked
	stats   issuetest.Stats // of the CA when the story began
	meters  []*lab.Meter

	mu    sync.Mutex
	wrong []error // what was wrong at some moment
}

// within bounds one telling, which takes about three seconds on a free machine.
const within = 2 * time.Minute

// tell tells the story with one death in it; a story that goes on from another
// goes on from a picture of it.
func (r *run) tell(ctx context.Context, s story, strike point) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if s.begins != nil {
		if err := r.rewind(ctx, *s.begins); err != nil {
			return fmt.Errorf("before the story: %w", err)
		}
	}
	return r.play(ctx, s, strike)
}

// rewind brings the farm to the end of an earlier story: by telling it, and the
// next time by what was on the disks then. The nodes serve what they did, as every
// story here that goes on from another ends with what it began with.
func (r *run) rewind(ctx context.Context, s story) error {
	picture := filepath.Join(r.dir, "picture")
	if r.lab == nil {
		if err := r.play(ctx, s, point{}); err != nil {
			return err
		}
		r.before = r.had
		return copies(picture, r.dir, r.disks())
	}
	for _, n := range r.lab.Nodes {
		if err := n.Clear(); err != nil {
			return err
		}
	}
	r.had = r.before
	return copies(r.dir, picture, r.disks())
}

// disks are the files and folders of a farm that a story changes.
func (r *run) disks() []string {
	all := []string{"controller/certfarm.db"}
	for _, n := range r.lab.Nodes {
		all = append(all, "nodes/"+n.Name()+"/etc", "nodes/"+n.Name()+"/store")
	}
	return all
}

// copies puts files and folders in the place of those of the same name.
func copies(to, from string, names []string) error {
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(to, name)); err != nil {
			return err
		}
		info, err := os.Stat(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name)))
		} else if err = os.MkdirAll(filepath.Join(to, filepath.Dir(name)), 0o700); err == nil {
			var text []byte
			if text, err = os.ReadFile(filepath.Join(from, name)); err == nil {
				err = os.WriteFile(filepath.Join(to, name), text, 0o600)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// play lets the controller live, die and live again, until the story has ended.
func (r *run) play(ctx context.Context, s story, strike point) error {
	r.story, r.asked, r.lives, r.wishes = s, false, 0, 1
	if err := r.begin(ctx); err != nil {
		return err
	}
	for {
		err := r.live(ctx, newLife(strike))
		if !r.life.died() {
			err = errors.Join(err, r.check(ctx), r.stop())
			return errors.Join(append(r.wrong, err)...)
		}
		if ctx.Err() != nil {
			return err
		}
		_ = r.lab.StopController() // whatever it says: it is dead
		if err := r.wholeOnNodes(); err != nil {
			return fmt.Errorf("when the controller was dead: %w", err)
		}
		strike = point{}
	}
}

// stop ends the controller in peace. It may be stopped while it still starts.
func (r *run) stop() error {
	if err := r.lab.StopController(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if _, err := os.Stat(r.database + "-wal"); err == nil {
		return errors.New("the store is closed and somebody still has its database open")
	}
	return nil
}

// begin remembers how things stood, and strikes the last node.
func (r *run) begin(ctx context.Context) error {
	if r.lab == nil {
		return nil
	}
	r.stats, r.failed = r.lab.CA.Stats(), 0
	var err error
	if r.oldPair, err = os.ReadFile(r.livePair(r.lab.Nodes[0].Name())); err != nil || r.story.fault == lab.NoFault {
		return err
	}
	return r.lab.Nodes[len(r.lab.Nodes)-1].Set(lab.Fault{Kind: r.story.fault})
}

// live is one life of the controller: started, asked, waited for.
func (r *run) live(ctx context.Context, l *life) error {
	r.life = l
	r.lives++
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with the life, or with its context
		select {
		case <-l.dead:
			cancel(errCrashed)
		case <-ctx.Done():
		}
	}()
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.story.ask(ctx, r); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	return r.ends(ctx)
}

// start starts the controller, and the farm if this is its first life.
func (r *run) start(ctx context.Context) (err error) {
	l := r.life
	r.line.of.Store(l)
	r.database = filepath.Join(r.dir, "controller", "certfarm.db")
	how := lab.Controlling{
		Log:   slog.New(slog.DiscardHandler),
		Store: store.Options{Observe: l.observe},
		Adjust: func(c *controller.Config) {
			c.Pace = controller.Pace{Look: time.Hour, Late: time.Hour, Retry: time.Hour, Lease: time.Minute}
			r.store, r.keys = c.Store, c.Keys
			l.equip(c, r.changed)
		},
	}
	if r.lab != nil {
		return r.lab.StartController(ctx, how)
	}
	r.lab, err = lab.Start(ctx, lab.Options{
		Layout:      lab.Layout{Dir: r.dir, Nodes: 2, Names: []string{"shop.test"}, Placeholder: true},
		File:        lab.FarmFile{Policy: policy()},
		CA:          issuetest.Options{Wrap: r.line.wrap},
		Controlling: how,
	})
	if err != nil {
		return err
	}
	r.watch()
	return nil
}

// watch begins to ask the nodes for handshakes.
func (r *run) watch() {
	for _, n := range r.lab.Nodes {
		r.meters = append(r.meters, lab.StartMeter(lab.MeterConfig{
			Address: n.HTTPSAddr(), SNI: "shop.test", Every: 500 * time.Millisecond,
			Timeout: time.Minute, // a machine that is busy is no node that is silent
		}))
	}
}

// policy waits for nothing but what is done; under the race detector everything
// takes longer.
func policy() farm.Policy {
	healthy := 100 * time.Millisecond
	if raced {
		healthy = 3 * time.Second
	}
	return farm.Policy{
		Canary: farm.Share{Count: 1}, Deadline: 20 * time.Second, HealthyDeadline: healthy,
		AbsentMax: farm.Share{Least: 1, Count: 1}, Drift: farm.Heal,
	}
}

// changed looks at a node after each change on it.
func (r *run) changed(node string) {
	if err := whole(r.livePair(node)); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.wrong = append(r.wrong, fmt.Errorf("at one moment on %s: %w", node, err))
	}
}

// livePair is the file of the pair that a node serves.
func (r *run) livePair(node string) string {
	return filepath.Join(r.dir, "nodes", node, filepath.FromSlash(lab.DefaultPEM))
}

// ends waits until the story has ended. An order that the CA refused, since nobody
// answered it while the controller was dead, is asked for once more, as a person
// would.
func (r *run) ends(ctx context.Context) error {
	for {
		written := r.store.Written()
		s, err := r.state(ctx)
		if err != nil {
			return err
		}
		if s.over() {
			return nil
		}
		if failed := s.failedOrders(); failed > r.failed && s.cert.Intent == "" {
			r.failed = failed
			if err := r.lab.Controller.Renew(ctx, r.lab.Farm, r.lab.Site, "crash test"); err != nil {
				return err
			}
		}
		for busy := true; busy; { // no need to look further
			select {
			case <-written:
			case <-ctx.Done():
				return fmt.Errorf("%w; it stood so: %s", context.Cause(ctx), s)
			}
			written = r.store.Written()
			if busy, err = r.busy(ctx); err != nil {
				return err
			}
		}
	}
}

// busy reports that there are jobs that the story waits for.
func (r *run) busy(ctx context.Context) (busy bool, err error) {
	err = r.store.View(ctx, func(tx *store.Tx) error {
		jobs, err := tx.Jobs(ctx, r.lab.Farm, 0)
		busy = awaited(jobs, tx.Now())
		return err
	})
	return busy, err
}

// awaited reports that a job runs or is due, or that one will go on with what was
// wished for. The journey of a compromise comes again in an hour by itself, also where
// the order that it needs has failed and a person must ask for another.
func awaited(jobs []store.JobRow, now time.Time) bool {
	return slices.ContainsFunc(jobs, func(j store.JobRow) bool {
		return j.Owner != "" || !j.RunAt.After(now) || slices.Contains([]string{"order", "advance", "act", "account", "revoke", "erase"}, j.Kind)
	})
}

// close ends the farm.
func (r *run) close() error {
	var errs []error
	if r.lab != nil {
		errs = append(errs, r.lab.Close())
	}
	for _, m := range r.meters {
		m.Close()
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// state is what the store says of the site.
type state struct {
	story    story
	had      int // versions before
	cert     farm.Certificate
	versions []farm.Version // newest first
	orders   []farm.Order
	rollouts []farm.Rollout // newest first
	jobs     []store.JobRow
	now      time.Time
}

func (r *run) state(ctx context.Context) (s state, err error) {
	s.story, s.had = r.story, len(r.had)
	err = r.store.View(ctx, func(tx *store.Tx) (err error) {
		s.now = tx.Now()
		if s.cert, err = tx.Certificate(ctx, r.lab.Farm, r.lab.Site); err != nil {
			return err
		}
		if s.versions, err = tx.Versions(ctx, r.lab.Farm, r.lab.Site); err != nil {
			return err
		}
		if s.orders, err = tx.Orders(ctx, r.lab.Farm, store.OrderQuery{Site: r.lab.Site}); err != nil {
			return err
		}
		if s.rollouts, err = tx.Rollouts(ctx, r.lab.Farm, r.lab.Site, 0); err != nil {
			return err
		}
		s.jobs, err = tx.Jobs(ctx, r.lab.Farm, 0)
		return err
	})
	return s, err
}

// over reports that what was wished for has come to its end and nothing more is
// done or due: a job that nobody does keeps a story from its end.
func (s state) over() bool {
	return !awaited(s.jobs, s.now) && !s.cert.Compromise.Open() && s.cert.Intent == "" && len(s.versions) > s.had &&
		len(s.rollouts) > 0 && s.rollouts[0].To.ID == s.versions[0].ID && s.rollouts[0].Outcome != farm.Running
}

func (s state) failedOrders() (n int) {
	for _, o := range s.orders {
		if o.State == farm.OrderFailed {
			n++
		}
	}
	return n
}

func (s state) String() string {
	text := fmt.Sprintf("%d versions (%d before), intent %q, verdict %q", len(s.versions), s.had, s.cert.Intent, s.cert.Verdict)
	for _, o := range s.orders {
		text += fmt.Sprintf("\n  order %s: %s %s", o.ID, o.State, o.Error)
	}
	for _, r := range s.rollouts {
		text += fmt.Sprintf("\n  rollout %s of %s: %q %s", r.ID, r.To.ID, r.Outcome, r.Why)
		for _, t := range r.Steps {
			text += fmt.Sprintf("\n    %s is %s, doing %q, try %d, again %s: %s", t.Target, t.State, t.Doing, t.Tries, t.Again.Sub(s.now), t.Error)
		}
	}
	for _, j := range s.jobs {
		text += fmt.Sprintf("\n  job %s %s in %s, owner %q, attempt %d: %s", j.Kind, j.Subject, j.RunAt.Sub(s.now).Round(time.Millisecond), j.Owner, j.Attempt, j.Error)
	}
	return text
}
