// Package controller joins deciding and doing: one file a kind of job (job_*.go)
// and one a thing that people ask of it (ask_*.go).
//
// A job does one thing and ends; what came of it is written together with the
// next job, in one transaction. Nothing that a later step needs lives in
// memory, so the controller may be killed anywhere and goes on where it stopped.
//
//	check → order … → (version, rollout) → advance ⇄ act → (desired) → look
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/job"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/trace"
)

// Config is everything that the work needs; main and the lab fill it in.
type Config struct {
	Store    *store.Store
	Keys     *secret.Keyring
	Kinds    deploy.Kinds
	Hosts    Hosts
	Issuers  func(context.Context, IssuerConfig) (Account, error)
	Solver   Solvers
	Prober   probe.Prober
	Asker    func(context.Context, http01.Ask) []http01.Finding // asks what a CA asks over HTTP
	CAPort   int                                                // where CAs ask over HTTP; 0: 80, as public ones do
	Notifier notify.Notifier
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now; the store's clock must be the same
	Pace     Pace
	InPlace  bool                // secrets may be read from file: and env: (run --once -f, lab)
	Commands map[string][]string // what farm.yaml may have run here (dns provider exec, drain, certificate_command): name to argv
	Helper   []string            // argv of a process that runs a DNS provider's API
	Shouter  []string            // argv of a process that speaks to services of the receivers of kind shoutrrr
	Owner    string              // names this process in leases; empty: made up
	Version  string              // of the program, for `certfarm doctor`, and to know who read a farm.yaml
	Workers  int                 // jobs at once; 0: 64
	Meter    Meter               // counts what is done; nil: nobody does
	Tracer   *trace.Tracer       // writes the spans of rollouts; nil: nobody does
	Known    *encode.Memory      // of pairs that were checked, for the deployers; nil: none
}

// Hosts opens the line to a node; key reads the node's login key when it is needed.
type Hosts func(ctx context.Context, farmName string, n farm.Node, c Context) (host.Host, error)

// Context is what opening a host may ask back of the controller.
type Context interface {
	// Secret reads a secret of the farm.
	Secret(ctx context.Context, farmName string, ref farm.SecretRef) (farm.Secret, error)
	// Node finds a node of the farm: the jump host.
	Node(ctx context.Context, farmName, name string) (farm.Node, error)
	// Host opens the line to a node.
	Host(ctx context.Context, farmName, node string) (host.Host, error)
	// Command is a command of the controller's list.
	Command(name string) (argv []string, err error)
}

// Solvers makes what answers for one validation of a site.
type Solvers func(ctx context.Context, p Proving, c Context) (prove.Solver, error)

// A Proving is one validation of a site, and what answering for it may take.
type Proving struct {
	Farm       string
	Validation farm.Validation
	Settings   store.Settings
	Thumbprint string // of the account's key (RFC 7638)
	Commands   map[string][]string
	Helper     []string
}

// An Account is an issuer whose account at the CA can be opened and changed.
type Account interface {
	issue.Issuer
	Registrar
}

// A Registrar is what concerns an account itself, and not an order.
type Registrar interface {
	// EnsureAccount opens the account, or finds it where its URL is known.
	EnsureAccount(ctx context.Context) (url string, err error)
	// Identities are the names by which CAA records allow the CA to issue; none
	// where it does not say.
	Identities(ctx context.Context) ([]string, error)
	// ChangeKey gives the account another key (PEM, PKCS#8; RFC 8555 §7.3.5). One
	// that it has already is no error.
	ChangeKey(ctx context.Context, to farm.Secret) error
	// Deactivate ends the account for good (RFC 8555 §7.3.6).
	Deactivate(ctx context.Context) error
	// Forget has the CA trust a proof no more, by its authorization's URL (RFC 8555
	// §7.5.2).
	Forget(ctx context.Context, authz string) error
}

// IssuerConfig is what making an issuer takes.
type IssuerConfig struct {
	Issuer     farm.Issuer
	Proxy      string
	AccountURL string
	AccountKey farm.Secret // PEM, PKCS#8
	EABHMAC    farm.Secret
	Tell       func(acme.Request) // hears of every request
}

// Pace is how often things are looked at when nothing happens.
type Pace struct {
	Look  time.Duration // what targets serve; default 5 min
	Late  time.Duration // a target that is absent, late or half reachable; default 30 s
	Retry time.Duration // first retry of a rollout that was restored; default 1 h, then 6 h
	Lease time.Duration // of a job; default 30 s
}

// A Controller does the work of any number of farms that live in one store.
type Controller struct {
	Config
	kinds  map[string]kind
	issued *issuers
	keys   atomic.Pointer[secret.Keyring] // Config.Keys, until a rekey
	agents *agents                        // of nodes: what is at hand of them
	tests  sync.Map                       // targets that are tried now: two trials of one would meet in its shadow place

	gathered sync.Map // reload groups whose activations wait for company: *gathering
	vouched  vouched
	signs    signs
}

// A kind is one kind of job: the work, done outside any transaction, and what is
// written of it. Either may be nil.
type kind struct {
	work  job.Handler
	apply store.Apply
}

// New makes a controller. Run starts it.
func New(c Config) *Controller {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Owner == "" {
		c.Owner = store.NewID("ctl")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Meter == nil {
		c.Meter = unmetered{}
	}
	c.Log = c.Log.With("controller", c.Owner)
	c.Pace = c.Pace.orDefaults()
	ctl := &Controller{Config: c, issued: newIssuers(), signs: signs{farms: map[string]signpost{}}}
	ctl.keys.Store(c.Keys)
	ctl.agents = ctl.newAgents()
	ctl.kinds = map[string]kind{
		"check":      {ctl.workCheck, ctl.applyCheck},
		"grant":      {nil, ctl.applyGrant},
		"replace":    {nil, ctl.applyReplace},
		"account":    {ctl.workAccount, ctl.applyAccount},
		"revoke":     {ctl.workRevoke, ctl.applyRevoke},
		"compromise": {ctl.workCompromise, ctl.applyCompromise},
		"erase":      {ctl.workErase, ctl.applyErase},
		"putback":    {ctl.workPutBack, ctl.applyPutBack},
		"order":      {ctl.workOrder, ctl.applyOrder},
		"advance":    {nil, ctl.applyAdvance},
		"act":        {ctl.workAct, ctl.applyAct},
		"look":       {ctl.workLook, ctl.applyLook},
		"records":    {ctl.workRecords, ctl.applyRecords},
		"rollover":   {ctl.workRollover, ctl.applyRollover},
		"exposed":    {ctl.workExposed, ctl.applyExposed},
		"forget":     {ctl.workForget, ctl.applyForget},
		"notify":     {ctl.workNotify, ctl.applyNotify},
		"deliver":    {ctl.workDeliver, ctl.applyDeliver},
		"ping":       {ctl.workPing, ctl.applyPing},
		"expire":     {nil, ctl.applyExpire},
	}
	return ctl
}

func (p Pace) orDefaults() Pace {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&p.Look, 5*time.Minute)
	set(&p.Late, 30*time.Second)
	set(&p.Retry, time.Hour)
	set(&p.Lease, 30*time.Second)
	return p
}

// Run does jobs until the context ends, and then waits for those that run.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before there was anything to do: that is no failure
		}
		return fmt.Errorf("starting: %w", err)
	}
	handlers := map[string]job.Handler{}
	for name, k := range c.kinds {
		handlers[name] = k.work
		if k.work == nil {
			handlers[name] = func(context.Context, farm.Job) farm.Result { return farm.Result{} }
		}
		handlers[name] = c.metered(handlers[name])
	}
	workers := c.Workers
	if workers == 0 {
		workers = 64
	}
	r := job.Runner{
		Queue: store.Queue{Store: c.Store, Owner: c.Owner, Apply: c.apply}, Handlers: handlers, Workers: workers,
		Lease: c.Pace.Lease, Wake: c.Store.Changed(), Log: c.Log,
	}
	var others sync.WaitGroup
	others.Go(func() { c.stayAlive(ctx, c.Now()) })
	defer others.Wait()
	return r.Run(ctx)
}

// startAgain is how long a controller waits for a database that is away as it starts.
const startAgain = time.Second

// start begins, as soon as the database is there: one that is cut from it as it starts
// waits for it as it does at any other time.
func (c *Controller) start(ctx context.Context) error {
	for {
		err := c.begin(ctx)
		if err == nil || !store.Away(err) {
			return err
		}
		c.Log.Warn("starting: the database is away, and is tried again", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(startAgain):
		}
	}
}

// begin makes sure that the master key belongs to the store, and arms what every
// farm keeps going by itself.
func (c *Controller) begin(ctx context.Context) error {
	if err := c.seeHistory(ctx); err != nil {
		return err
	}
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		for r, err := range tx.AllSealed(ctx) {
			if err == nil {
				err = c.keyring().Check(r.Sealed)
			}
			if err != nil {
				return err
			}
			break // one is enough: all are sealed under keys of one file
		}
		farms, err := tx.Farms(ctx)
		if err != nil {
			return err
		}
		for _, f := range farms {
			for _, kind := range keptGoing() {
				if err := tx.Enqueue(ctx, farm.Job{Farm: f, Kind: kind, Subject: f, RunAt: tx.Now()}); err != nil {
					return err
				}
			}
			if err := observeAll(ctx, tx, f); err != nil {
				return err
			}
		}
		return nil
	})
}

// keptGoing are the jobs that every farm keeps going by itself.
func keptGoing() []string { return []string{"notify", "ping", "expire"} }

// apply writes what came of a job.
func (c *Controller) apply(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	k, ok := c.kinds[f.Job.Kind]
	if !ok || k.apply == nil || f.Result.Err != nil && f.Result.Value == nil {
		return nil
	}
	return k.apply(ctx, tx, f)
}
