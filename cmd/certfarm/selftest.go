package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
)

// selfMark names what a self test makes on a machine.
const selfMark = "certfarm-selftest"

// selftesting is what `certfarm selftest` was told.
type selftesting struct {
	kind, target, file, out string
	yes, reload             bool
	rules                   []string
}

func newSelftest(a *app) *cobra.Command {
	var o selftesting
	c := &cobra.Command{
		Use: "selftest KIND --target NAME -f FILE", GroupID: groupStart, Short: "Hold a kind of target to its contract, on your own test machine",
		Long: `Selftest runs the rules that every kind of target keeps, on a real machine or
service of yours: staging changes nothing live, what is refused leaves what was
live, every step may be repeated, and can be cut after any call and be finished
or undone. It reads farm.yaml and works in this process; no controller is asked.

It works in a place of its own beside the target and takes that away again, also
after Ctrl-C. What is live is not touched; but use a test machine: commands run
and files change hundreds of times. It writes a result sheet.

KIND is a kind of certfarm kinds, or one on Windows: apache-windows, nginx-windows.
The file may name secrets as {file: …} and {env: …}.`,
		Example: `certfarm selftest nginx --target shop/nginx@test1 -f farm.yaml
certfarm selftest ccs --target shop/ccs -f farm.yaml --out ccs.md
certfarm selftest apache-windows --target shop/apache@wintest -f farm.yaml --yes`,
		Args: args(1, 1, "a kind of target"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return target.All().Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			o.kind = given[0]
			if o.target == "" || o.file == "" {
				return usage("certfarm selftest nginx --target SITE/NAME@NODE -f farm.yaml", "selftest needs --target and -f")
			}
			return a.selftest(cmd.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.target, "target", "", "the target beside which is tried")
	f.StringVarP(&o.file, "file", "f", "", "the farm.yaml that has it")
	f.StringVar(&o.out, "out", "", "file for the result sheet, or - (default: selftest-KIND.md)")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.reload, "reload", false, "reload the server, too, again and again")
	f.StringArrayVar(&o.rules, "rule", nil, "only this rule; may be repeated")
	return c
}

func (a *app) selftest(ctx context.Context, o selftesting) error {
	for _, r := range o.rules {
		if !slices.Contains(deploytest.Rules(), r) {
			return usage(meantOr(config.Meant(r, deploytest.Rules()), "they are: "+strings.Join(deploytest.Rules(), "; ")), "there is no rule %q", r)
		}
	}
	text, parsed, err := a.read(o.file, true)
	if err != nil {
		return err
	}
	t, node, err := chosen(parsed.Farm, o)
	if err != nil {
		return err
	}
	b, end, err := a.bench(ctx, o, text, parsed.Farm.Name)
	if err != nil {
		return err
	}
	defer end()
	p := &deploytest.Practice{Kinds: target.All(), Kind: t.Kind, Options: b.Target.Options, Setup: b.Setup, Mark: selfMark, Reload: o.reload}
	places, err := p.Places()
	if errors.Is(err, deploy.ErrNoShadow) {
		return hinted(err, "try it by a rollout of a site of its own on a test machine")
	}
	if err != nil {
		return err
	}
	if err := a.ready(ctx, o, p, places); err != nil {
		return err
	}
	s := sheet{
		Kind: o.kind, Target: t.Name, Node: t.Node, System: systemOf(ctx, node, b.Setup), Began: a.now(), Version: version(),
		Controller: runtime.GOOS + "/" + runtime.GOARCH, Reload: o.reload,
	}
	for _, place := range places {
		s.Touched = append(s.Touched, place.Touches...)
		for _, u := range place.Untried {
			s.NotTried = append(s.NotTried, u.What+": "+u.Why)
		}
	}
	p.Told = a.tellOutcome
	s.Rules, err = p.Run(ctx, o.rules...)
	s.Took = a.now().Sub(s.Began).Round(time.Second)
	if err != nil {
		s.Left = err.Error()
	}
	return a.hand(o, s)
}

func meantOr(near, otherwise string) string {
	if near != "" {
		return "did you mean " + near + "?"
	}
	return otherwise
}

// onWindows is what the word for a kind ends in that is tried on a node with Windows.
const onWindows = "-windows"

// chosen is the target that is meant, and its node.
func chosen(f farm.Farm, o selftesting) (t farm.Target, n farm.Node, err error) {
	kind, windows := strings.CutSuffix(o.kind, onWindows)
	if _, err := kindOfTarget(target.All(), kind); err != nil {
		return t, n, err
	}
	var all []string
	for _, s := range f.Sites {
		for _, at := range s.Targets {
			all = append(all, at.Name)
			if at.Name == o.target {
				t = at
			}
		}
	}
	if t.Name == "" {
		return t, n, usage(meantOr(config.Meant(o.target, all), "there are: "+strings.Join(all, ", ")), "%s has no target %q", o.file, o.target)
	}
	for _, at := range f.Nodes {
		if at.Name == t.Node {
			n = at
		}
	}
	if t.Kind != kind {
		return t, n, usage("certfarm selftest "+t.Kind+" --target "+t.Name, "%s is of kind %s", t.Name, t.Kind)
	}
	if onIt := n.Shell == "cmd" || n.Shell == "powershell"; windows && !onIt {
		return t, n, usage("set `shell: cmd` or `shell: powershell` of node "+n.Name+", or leave "+onWindows+" out", "%s is not on a node with Windows", t.Name)
	}
	return t, n, nil
}

// bench opens the line to the target. The farm is applied to a database of its own
// that nobody works on: nothing is ordered or rolled out.
func (a *app) bench(ctx context.Context, o selftesting, text []byte, farmName string) (controller.Bench, func(), error) {
	dir, err := os.MkdirTemp("", "certfarm-selftest-")
	if err != nil {
		return controller.Bench{}, nil, err
	}
	a.state = dir
	h, err := a.open(ctx, keeping{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return controller.Bench{}, nil, errors.Join(err, os.RemoveAll(dir))
	}
	end := func() {
		if err := errors.Join(h.Close(), os.RemoveAll(dir)); err != nil {
			a.say("ending the self test: %v", err)
		}
	}
	h.InPlace = true
	ctl := controller.New(h.Config)
	_, err = ctl.Apply(ctx, text, o.file, person(), 0)
	var b controller.Bench
	if err == nil {
		b, err = ctl.BenchOf(ctx, farmName, o.target)
	}
	if err != nil {
		end()
		return b, nil, hinted(err, cmp.Or(hintOf(err), "a farm.yaml for a self test names secrets as {file: …} or {env: …}"))
	}
	return b, end, nil
}

// ready asks the person, and then the target.
func (a *app) ready(ctx context.Context, o selftesting, p *deploytest.Practice, places []deploy.Place) error {
	if err := a.assentTo(o, places); err != nil {
		return err
	}
	err := p.Reach(ctx)
	if errors.Is(err, deploy.ErrTest) {
		return hinted(fmt.Errorf("nothing was tried: %w", err), "the rules need a server whose own configuration passes: mend it, or put a first certificate where it looks for one")
	}
	if err != nil {
		return hinted(fmt.Errorf("nothing was tried: %w", err), "mend that first: every rule would meet the same")
	}
	return nil
}

// assentTo says what will be touched, and asks.
func (a *app) assentTo(o selftesting, places []deploy.Place) error {
	a.say("The self test of %s writes beside %s, and takes it away again:", o.kind, o.target)
	for _, p := range places {
		for _, touched := range p.Touches {
			a.say("  %s", touched)
		}
	}
	if o.yes {
		return nil
	}
	if a.json || !isTerminal(a.in) {
		return usage("look at what it touches, and add --yes", "selftest asks first, and there is nobody to ask")
	}
	if !a.ask("Is this a test machine, and may it be so?") {
		return &exit{exitFailed, errors.New("nothing was tried"), ""}
	}
	return nil
}

func (a *app) tellOutcome(o deploytest.Outcome) {
	sign, t := "✓", good
	switch o.Result {
	case deploytest.Broken:
		sign, t = "✗", bad
	case deploytest.NotForIt, deploytest.NotRun:
		sign, t = "–", faint
	}
	a.say("%s %s %s", a.tint(a.err, t, sign), o.Rule, a.tint(a.err, faint, o.Took.Round(time.Millisecond).String()))
	for _, d := range o.Details {
		if o.Result == deploytest.Broken {
			a.say("    %s", oneLine(d))
		}
	}
}

// systemOf asks the node what it is, for the sheet; empty: it does not say.
func systemOf(ctx context.Context, n farm.Node, s deploy.Setup) string {
	if s.Host == nil || n.SMB != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	argv := []string{"uname", "-srm"}
	if n.Shell == "cmd" || n.Shell == "powershell" {
		argv = []string{"cmd", "/c", "ver"}
	}
	out, err := s.Host.Run(ctx, argv, nil)
	if err != nil {
		return ""
	}
	return oneLine(string(out))
}

// hand writes the sheet, and ends with its verdict.
func (a *app) hand(o selftesting, s sheet) error {
	s.sum()
	name := cmp.Or(o.out, "selftest-"+o.kind+".md")
	out := io.Discard
	if name == "-" && !a.json {
		out = a.out
	}
	text := s.markdown()
	if name != "-" {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return fmt.Errorf("the result sheet: %w", err)
		}
	}
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	if a.json {
		if err := a.object(object{Type: "selftest", Item: s}); err != nil {
			return err
		}
		return quiet(s.exit())
	}
	if name != "-" {
		a.print("%s: %s. The sheet is in %s", o.kind, s.line(), name)
	}
	return quiet(s.exit())
}
