package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/metrics"
	"github.com/certfarm/certfarm/internal/store"
)

// rehearsing is what `certfarm lab` was told.
type rehearsing struct {
	farm   string
	nodes  int
	faults []string
	once   bool
	dir    string
	log    string

	dashboard string // where it is, and how to come in; filled in when it is open
}

// The farms that there are.
const (
	webFarm   = "web"   // nodes of one sort
	mixedFarm = "mixed" // every sort of target
)

func newLab(a *app) *cobra.Command {
	var r rehearsing
	c := &cobra.Command{
		Use: "lab", GroupID: groupStart, Short: "Run a whole farm in this process, and rehearse what can go wrong",
		Long: `Lab starts a farm in one process, on 127.0.0.1 and free ports, without root: an
ACME CA (Pebble), a name server, a round-robin balancer, nodes with SSH and a web
server each, and a controller. It gets a certificate through the balancer, brings
it to every node, and proves by handshakes what each node serves. Then it stays
up to be looked at until Ctrl-C.

With --farm mixed the certificate goes to every sort of place at once: two Apaches
over SFTP, a HAProxy in front of them, two IIS readers of a share with a certificate
store, and two consumers of an Azure Key Vault. Apache, HAProxy and (as root) Samba
are the real ones of this machine where they are installed; the first line says what
is real and what is a stand-in.

With --fault it brings version 1 up first, and then renews while a node fails:

` + faultHelp(),
		Example: `certfarm lab
certfarm lab --nodes 12
certfarm lab --fault web2=wrong-key
certfarm lab --once --fault web3=down:10s
certfarm lab --farm mixed --once --fault vault=refuses`,
		Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.farm == mixedFarm && cmd.Flags().Changed("nodes") {
				return usage("", "--nodes: the mixed farm has its own nodes")
			}
			return a.lab(cmd.Context(), r)
		},
	}
	f := c.Flags()
	f.StringVar(&r.farm, "farm", webFarm, "which farm: "+webFarm+" or "+mixedFarm)
	f.IntVar(&r.nodes, "nodes", 3, fmt.Sprintf("how many nodes, 1 to %d", lab.MaxNodes))
	f.StringArrayVar(&r.faults, "fault", nil, "NODE=KIND[:TIME], such as web2=bad-reload or web3=down:10s; may be repeated")
	f.BoolVar(&r.once, "once", false, "end after the rollout, with its exit code")
	f.StringVar(&r.dir, "dir", "", "folder for everything the lab writes (default: a new one, removed at the end)")
	f.StringVar(&r.log, "log", "", "file for the controller's log (default: controller.log in the folder)")
	_ = c.RegisterFlagCompletionFunc("fault", completeFaults)
	_ = c.RegisterFlagCompletionFunc("farm", cobra.FixedCompletions([]string{webFarm, mixedFarm}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func faultHelp() string {
	var b strings.Builder
	for _, k := range lab.FaultKinds() {
		fmt.Fprintf(&b, "  %-15s %s\n", k.Kind, k.Doc)
	}
	return strings.TrimRight(b.String(), "\n")
}

func completeFaults(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	node, _, named := strings.Cut(typed, "=")
	if !named {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	for _, k := range lab.FaultKinds() {
		all = append(all, node+"="+string(k.Kind))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// parse reads the faults, by node.
func (r rehearsing) parse() (map[string]lab.Fault, error) {
	faults := map[string]lab.Fault{}
	for _, text := range r.faults {
		node, f, err := lab.ParseFault(text)
		if err != nil {
			return nil, usage("`certfarm lab --help` lists the faults", "--fault %s: %v", text, err)
		}
		faults[node] = f
	}
	return faults, nil
}

func (a *app) lab(ctx context.Context, r rehearsing) error {
	faults, err := r.parse()
	if err != nil {
		return err
	}
	if r.nodes < 1 || r.nodes > lab.MaxNodes {
		return usage("", "--nodes %d: a lab has 1 to %d nodes", r.nodes, lab.MaxNodes)
	}
	if r.farm != webFarm && r.farm != mixedFarm {
		return usage("", "--farm %s: there are %s and %s", r.farm, webFarm, mixedFarm)
	}
	if r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "certfarm-lab-"); err != nil {
			return err
		}
		defer os.RemoveAll(r.dir)
	}
	l, end, err := a.startLab(ctx, &r)
	if err != nil {
		return err
	}
	defer end()
	if err := l.Check(faults); err != nil {
		return usage("", "--fault: %v", err)
	}
	return a.rehearse(ctx, l, r, faults)
}

// startLab starts the lab, and the API that the other commands use.
func (a *app) startLab(ctx context.Context, r *rehearsing) (*lab.Lab, func(), error) {
	if r.log == "" {
		r.log = filepath.Join(r.dir, "controller.log")
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, nil, err
	}
	file, err := os.OpenFile(r.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.NewTextHandler(file, nil))
	book := metrics.New(version())
	l, err := lab.Start(ctx, lab.Options{
		Layout:      lab.Layout{Dir: r.dir, Nodes: r.nodes, Mixed: r.farm == mixedFarm},
		Controlling: lab.Controlling{Log: log, Adjust: func(c *controller.Config) { c.Meter = book }},
	})
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	a.state = filepath.Join(r.dir, "controller")
	h := api.New(api.Config{Controller: l.Controller, Version: version(), Log: log, Metrics: a.scraped(book, l.Controller)})
	open, err := a.openLab(ctx, l, r, h, log)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close(), file.Close())
	}
	within, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- open.Serve(within) }()
	return l, func() {
		stop()
		if err := errors.Join(<-done, l.Close(), file.Close()); err != nil {
			a.say("ending the lab: %v", err)
		}
	}, nil
}

// A labResult is the last line of a rehearsal.
type labResult struct {
	result
	Nodes []served `json:"nodes"`
}

// A served is what a node was seen to serve by the lab itself.
type served struct {
	lab.Witness
	Version string `json:"version" doc:"new, old, other or nothing"`
}

func (a *app) rehearse(ctx context.Context, l *lab.Lab, r rehearsing, faults map[string]lab.Fault) error {
	a.introduce(l)
	first, err := a.watchLab(ctx, l, func() error { _, err := l.Apply(ctx); return err })
	if err != nil {
		return err
	}
	now := l.Witness(ctx)
	if len(faults) == 0 || first[0].Exit != exitDone {
		return a.afterwards(ctx, l, r, first, witnessed(now, now[0].Serves, ""))
	}
	a.say("\nVersion 1 is up everywhere. Now it is renewed, and this goes wrong: %s\n", strings.Join(r.faults, ", "))
	second, err := a.watchLab(ctx, l, func() error { return l.Strike(ctx, faults) })
	if err != nil {
		return err
	}
	d, err := l.Controller.Describe(ctx, l.Farm, l.Site)
	if err != nil {
		return err
	}
	issued := d.Versions[0].Leaves[0].Fingerprint // the newest
	if r.once && comesBack(faults) && second[0].Exit == exitPartly {
		if err := a.waitForHealing(ctx, l); err != nil {
			return err
		}
	}
	return a.afterwards(ctx, l, r, second, witnessed(l.Witness(ctx), issued, now[0].Serves))
}

// introduce says what runs, and shows the farm.yaml without its certificates.
func (a *app) introduce(l *lab.Lab) {
	nodes := farm.Count(len(l.Nodes), "node")
	if mixture := l.Mixture(); mixture != "" {
		a.say("%s", mixture)
		nodes += fmt.Sprintf(", %s of a share and a Key Vault,", farm.Count(len(l.Readers), "reader"))
	}
	a.say("A farm is up: %s behind a balancer at https://%s, a CA at %s, a name server at %s.",
		nodes, l.Balancer.HTTPSAddr(), l.CA.Directory, l.DNS.Addr())
	a.say("The CA asks through the balancer, which leads /.well-known/acme-challenge/ to the controller.")
	a.say("%s says:\n", l.FarmFile)
	text, err := os.ReadFile(l.FarmFile)
	if err != nil {
		a.say("%v", err)
		return
	}
	width, _ := size(a.err)
	for _, line := range abridged(string(text)) {
		a.say("  %s", a.tint(a.err, faint, cut(line, width-2)))
	}
	a.say("")
}

// abridged is farm.yaml as far as one reads it: certificates, and all nodes and
// targets but the first, are cut short.
func abridged(text string) (lines []string) {
	first := map[string]bool{}
	skipping := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if skipping != "" && (indent > len(skipping) || strings.HasPrefix(line, skipping) && again(line, first)) {
			continue
		}
		skipping = ""
		if kind := repeated(line); kind != "" && first[kind] || strings.Contains(line, "-----BEGIN") {
			skipping = strings.Repeat(" ", indent)
			lines = append(lines, skipping+"…")
			if kind == "" {
				skipping = skipping[1:] // the rest of the PEM text stands as far in
			}
			continue
		} else if kind != "" {
			first[kind] = true
		}
		lines = append(lines, line)
	}
	return lines
}

// repeated is what a line begins that the lab's farm.yaml has once for each node: a
// node, or a target of one kind.
func repeated(line string) string {
	if strings.HasPrefix(line, "  web") {
		return "  web"
	}
	if begin := "      - kind:"; strings.HasPrefix(line, begin) {
		kind, _, _ := strings.Cut(line[len(begin):], "#")
		return begin + strings.TrimRight(kind, " ")
	}
	return ""
}

func again(line string, first map[string]bool) bool { return first[repeated(line)] }

// watchLab shows what happens after begin until the lab's site rests.
func (a *app) watchLab(ctx context.Context, l *lab.Lab, begin func() error) ([]siteResult, error) {
	f := &follower{ui: a.ui, source: l.Controller, farm: l.Farm, sites: []string{l.Site}}
	if err := f.begin(ctx); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err := begin(); err != nil {
		return nil, err
	}
	return f.run(ctx)
}

func witnessed(all []lab.Witness, issued, old string) (nodes []served) {
	for _, w := range all {
		s := served{Witness: w, Version: "other"}
		switch w.Serves {
		case "":
			s.Version = "nothing"
		case issued:
			s.Version = "new"
		case old:
			s.Version = "old"
		}
		nodes = append(nodes, s)
	}
	return nodes
}

func comesBack(faults map[string]lab.Fault) bool {
	for _, f := range faults {
		if f.Kind == lab.Down && f.For > 0 {
			return true
		}
	}
	return false
}

// waitForHealing waits until the node that was away serves the new version. What
// was told about the rollout stays: it ended without that node.
func (a *app) waitForHealing(ctx context.Context, l *lab.Lab) error {
	issued := l.CA.Stats().Total()
	a.say("Waiting for what is absent to come back …")
	r, err := l.Controller.Rollout(ctx, l.Farm, l.Site)
	if err != nil {
		return err
	}
	if err := l.Healed(ctx, r.To.ID); err != nil {
		return err
	}
	a.say("It is back, and was brought up to date by itself; the CA was asked %s for it.", farm.Count(l.CA.Stats().Total()-issued, "time"))
	return nil
}

// afterwards shows what each node serves, and stays up to be explored.
func (a *app) afterwards(ctx context.Context, l *lab.Lab, r rehearsing, sites []siteResult, nodes []served) error {
	if !a.json {
		a.say("\nWhat each node serves, seen from outside the controller:")
		var rows [][]cell
		for _, n := range nodes {
			t := map[string]tone{"new": good, "old": warn}[n.Version]
			rows = append(rows, []cell{{n.Node, plain}, {farm.Short(n.Serves), plain}, {n.Version, t}, {n.Error, faint}})
		}
		a.table([]string{"NODE", "SERVES", "VERSION", ""}, rows)
	}
	err := a.labResult(sites, nodes)
	if r.once {
		return err
	}
	a.explore(l, r.dashboard)
	last, lastErr := l.Controller.Events(ctx, l.Farm, store.EventQuery{Newest: true, Limit: 1})
	if lastErr != nil || len(last) == 0 {
		return errors.Join(err, lastErr)
	}
	_ = l.Controller.Follow(ctx, l.Farm, store.EventQuery{After: last[0].ID}, func(e farm.Event) error {
		if !a.json { // the result was the last line
			a.say("%s", a.eventLine(e, 12))
		}
		return nil
	}) // it ends with the context only
	return err
}

func (a *app) labResult(sites []siteResult, nodes []served) error {
	if !a.json {
		return a.result(sites)
	}
	r := labResult{result{Type: "result", Sites: sites}, nodes}
	for _, s := range sites {
		r.Exit = worse(r.Exit, s.Exit)
	}
	if err := a.object(r); err != nil {
		return err
	}
	return quiet(r.Exit)
}
