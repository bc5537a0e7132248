package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A Checkup is how the system itself is: who does the work, in what database, and
// whether all that it needs can be reached from here.
type Checkup struct {
	At          time.Time       `json:"at"`
	Controllers []Seat          `json:"controllers"`
	Database    DatabaseState   `json:"database"`
	Lanes       []store.Held    `json:"lanes" doc:"what is being done, and by whom; 200 at most"`
	Jobs        store.JobCount  `json:"jobs"`
	Fences      []Fence         `json:"fences" doc:"by class: what keeps a stale controller out of the targets"`
	Checks      []CheckupResult `json:"checks"`
	Failed      int             `json:"failed"`
	Warnings    int             `json:"warnings"`
}

// A Seat is a controller, and whether it was heard of lately.
type Seat struct {
	store.Seat
	Alive bool `json:"alive"`
	Here  bool `json:"here" doc:"it is the one that answers"`
}

// DatabaseState is where everything is remembered.
type DatabaseState struct {
	Engine string `json:"engine" enum:"sqlite,postgres"`
	store.Replication
}

// A Fence is how many targets of a kind there are, and what keeps a stale controller
// out of them.
type Fence struct {
	Class   string `json:"class" enum:"fenced,conditional,unfenced"`
	Kind    string `json:"kind"`
	Targets int    `json:"targets"`
}

// A CheckupResult is one thing that was looked at.
type CheckupResult struct {
	Area    string  `json:"area" enum:"controller,database,job,receiver,agents,node,target,issuer"`
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict" enum:"ok,warning,failed"`
	Saw     string  `json:"saw"`
	Hint    string  `json:"hint,omitempty"`
}

// A Verdict is what a checkup thinks of one thing.
type Verdict string

// The verdicts. A failure makes `certfarm doctor` end with 1.
const (
	CheckupOK      Verdict = "ok"
	CheckupWarning Verdict = "warning"
	CheckupFailed  Verdict = "failed"
)

const (
	lanesShown   = 200
	failingShown = 50
	failsOften   = 3               // attempts after which a job that fails is more than a passing trouble
	skewTold     = 2 * time.Second // between a controller's clock and the database's
)

// A chart is what the store says for a checkup.
type chart struct {
	farm    farm.Farm
	places  []farm.Place
	failing []store.JobRow
	held    map[string]store.Account // by issuer: nothing is sent there for a while
	told    Notifications
	ca      AgentsCA
}

// Checkup looks at the system itself. It asks every node, nodeless target and CA,
// from the controller that answers; nothing is changed.
func (c *Controller) Checkup(ctx context.Context, farmName string) (k Checkup, err error) {
	var w chart
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		k, w, err = c.remembered(ctx, tx, farmName)
		return err
	})
	if err != nil {
		return k, err
	}
	k.Fences = c.fences(w.places, w.farm.Nodes)
	k.Checks = slices.Concat(k.ofControllers(), c.ofDatabase(ctx, &k.Database), ofJobs(k.Jobs, w.failing), ofReceivers(w.told), ofAgentsCA(w.ca, k.At), c.reach(ctx, w))
	for _, r := range k.Checks {
		switch r.Verdict {
		case CheckupFailed:
			k.Failed++
		case CheckupWarning:
			k.Warnings++
		case CheckupOK:
		}
	}
	return k, nil
}

// remembered reads what a checkup takes from the store.
func (c *Controller) remembered(ctx context.Context, tx *store.Tx, farmName string) (k Checkup, w chart, err error) {
	k.At = tx.Now()
	if w.farm, err = tx.Farm(ctx, farmName); err != nil {
		return k, w, err
	}
	seats, err := tx.Seats(ctx)
	if err != nil {
		return k, w, err
	}
	for _, s := range seats {
		k.Controllers = append(k.Controllers, Seat{s, tx.Now().Sub(s.Seen) <= aliveWithin, s.Owner == c.Owner})
	}
	if k.Lanes, err = tx.Held(ctx, farmName, lanesShown); err != nil {
		return k, w, err
	}
	if k.Jobs, err = tx.CountJobs(ctx, farmName); err != nil {
		return k, w, err
	}
	if w.failing, err = tx.Failing(ctx, farmName, failingShown); err != nil {
		return k, w, err
	}
	if w.held, err = heldAccounts(ctx, tx, w.farm); err != nil {
		return k, w, err
	}
	if w.told, err = notifications(ctx, tx, farmName); err != nil {
		return k, w, err
	}
	if slices.ContainsFunc(w.farm.Nodes, func(n farm.Node) bool { return n.Agent }) {
		if _, w.ca, err = c.agentsCAState(ctx, tx); err != nil {
			return k, w, err
		}
	}
	w.places, err = tx.Places(ctx, farmName, "")
	return k, w, err
}

// heldAccounts are those to which nothing is sent for a while.
func heldAccounts(ctx context.Context, tx *store.Tx, f farm.Farm) (map[string]store.Account, error) {
	held := map[string]store.Account{}
	for _, i := range f.Issuers {
		a, err := tx.Account(ctx, f.Name, i.Name, i.Directory)
		if err == nil && a.HoldUntil.After(tx.Now()) {
			held[i.Name] = a
		}
		if err := except(err, store.ErrNotFound); err != nil {
			return nil, err
		}
	}
	return held, nil
}

// fences counts the targets by what keeps a stale controller out of them.
func (c *Controller) fences(places []farm.Place, nodes []farm.Node) (all []Fence) {
	count, known := map[Fence]int{}, map[string]farm.Node{}
	for _, n := range nodes {
		known[n.Name] = n
	}
	for _, p := range places {
		if !p.Released {
			count[Fence{Class: c.fenceOf(p.Target.Kind, known[p.Target.Node]), Kind: p.Target.Kind}]++
		}
	}
	for f, n := range count {
		f.Targets = n
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b Fence) int { return strings.Compare(a.Class+" "+a.Kind, b.Class+" "+b.Kind) })
	return all
}

// ofControllers judges what the controllers said of themselves.
func (k Checkup) ofControllers() (all []CheckupResult) {
	versions := map[string]bool{}
	for _, s := range k.Controllers {
		r := CheckupResult{Area: "controller", Name: s.Owner, Verdict: CheckupOK}
		if s.Host != "" {
			r.Name = fmt.Sprintf("%s (%s, process %d)", s.Owner, s.Host, s.Process)
		}
		ago := k.At.Sub(s.Seen).Round(time.Second)
		switch {
		case !s.Alive:
			r.Verdict = CheckupWarning
			r.Saw = fmt.Sprintf("silent for %s: it was killed, or is cut from the database", ago)
			r.Hint = "the others have taken over its work; it is forgotten a day after it was last heard of"
		case s.Skew.Abs() > skewTold:
			r.Verdict = CheckupWarning
			r.Saw = fmt.Sprintf("its clock is %s %s the database's", s.Skew.Abs().Round(time.Millisecond), aheadOf(s.Skew))
			r.Hint = "let NTP set both clocks: certificates and windows are judged by the controller's"
		case !s.Hears:
			r.Verdict = CheckupWarning
			r.Saw = "what the others write does not wake it: it looks by itself, every 30 s at least"
			r.Hint = "LISTEN needs a session of its own: connect to PostgreSQL itself, or have the pooler pool sessions"
		default:
			r.Saw = fmt.Sprintf("seen %s ago, its clock within %s of the database's", ago, max(s.Skew.Abs().Round(time.Millisecond), time.Millisecond))
		}
		if s.Alive {
			versions[s.Version] = true
		}
		all = append(all, r)
	}
	if len(versions) > 1 {
		all = append(all, CheckupResult{"controller", "versions", CheckupWarning,
			fmt.Sprintf("%d versions of certfarm work side by side", len(versions)), "that is for an upgrade: bring all to one"})
	}
	return all
}

func aheadOf(skew time.Duration) string {
	if skew > 0 {
		return "ahead of"
	}
	return "behind"
}

// ofDatabase asks the database how safe it is.
func (c *Controller) ofDatabase(ctx context.Context, d *DatabaseState) []CheckupResult {
	r := CheckupResult{Area: "database", Name: "SQLite", Verdict: CheckupOK, Saw: "one controller; every commit is synced to its disk"}
	d.Engine = "sqlite"
	if !c.Store.Shared() {
		return []CheckupResult{r}
	}
	r.Name, d.Engine = "PostgreSQL", "postgres"
	var err error
	d.Replication, err = c.Store.Replication(ctx)
	switch {
	case err != nil:
		r.Verdict, r.Saw = CheckupFailed, err.Error()
	case d.Unsafe != "":
		r.Verdict, r.Saw, r.Hint = CheckupWarning, d.Unsafe, d.Hint
	case d.Standbys == 0:
		r.Saw = "no standby is connected; every commit is synced to its disk"
	default:
		r.Saw = fmt.Sprintf("%d standbys, %d of which a commit waits for", d.Standbys, d.Synced)
	}
	return []CheckupResult{r}
}

// ofJobs judges what is done and fails.
func ofJobs(n store.JobCount, failing []store.JobRow) []CheckupResult {
	all := []CheckupResult{{"job", "all", CheckupOK, fmt.Sprintf("%d run, %d wait", n.Running, n.Waiting), ""}}
	if n.Late > 0 {
		all[0].Verdict = CheckupFailed
		all[0].Saw += fmt.Sprintf(", %d are due for more than a minute and nobody does them", n.Late)
		all[0].Hint = "the controllers are too busy, or stopped: look at their logs, or start another"
	}
	for _, j := range failing {
		r := CheckupResult{"job", j.Kind + " " + j.Subject, CheckupWarning, fmt.Sprintf("attempt %d failed: %s", j.Attempt, j.Error), "it is tried again at " + j.RunAt.UTC().Format("2006-01-02 15:04:05 MST")}
		if j.Attempt >= failsOften {
			r.Verdict = CheckupFailed
		}
		all = append(all, r)
	}
	return all
}
