package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/controller"
)

// running is what `certfarm run` was told.
type running struct {
	keeping
	once             bool
	file, challenges string
	wait             time.Duration
	dns              []string
	verbose          bool
}

func newRun(a *app) *cobra.Command {
	var r running
	c := &cobra.Command{
		Use: "run --once -f FILE", GroupID: groupStart, Short: "Do all of it once, in this process: for cron",
		Long: `Run applies a farm.yaml, orders and rolls out what is due, waits until every site
rests, and ends. It needs no controller; what it knows is in the state folder,
so the next run goes on where this one stopped. A farm.yaml for it may name
secrets as {file: …} and {env: …}, since the same person runs it.`,
		Example: `certfarm run --once -f farm.yaml
certfarm run --once -f farm.yaml --for 30m --challenge-listen :80`,
		Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !r.once {
				return usage("add --once, or let `certfarm serve` stay and `certfarm apply` talk to it", "run only knows --once")
			}
			if r.file == "" {
				return usage("certfarm run --once -f farm.yaml", "run needs a farm.yaml")
			}
			return a.run(cmd.Context(), r)
		},
	}
	f := c.Flags()
	f.BoolVar(&r.once, "once", false, "end when every site rests")
	f.StringVarP(&r.file, "file", "f", "", "the farm.yaml")
	f.DurationVar(&r.wait, "for", 10*time.Minute, "work for this long at most")
	f.StringVar(&r.challenges, "challenge-listen", ":8402", "address that answers HTTP-01 questions, or none")
	f.StringSliceVar(&r.dns, "dns-listen", nil, "addresses that answer DNS for zones delegated to the controllers (dns provider builtin)")
	f.StringVar(&r.commands, "commands-file", "", "YAML file of the commands that farm.yaml may name: dns provider exec, targets of kind exec, drain, certificate_command (default: commands.yaml in the state folder, if there is one)")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "log to standard error, too")
	a.keepFlags(c, &r.keeping)
	return c
}

func (a *app) run(ctx context.Context, r running) error {
	text, parsed, err := a.read(r.file, true)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler) // the events are shown as they come
	if r.verbose {
		log = a.logger(slog.LevelInfo)
	}
	h, err := a.open(ctx, r.keeping, log)
	if err != nil {
		return err
	}
	defer h.Close()
	h.InPlace = true
	ctl := controller.New(h.Config)
	challenges, err := openChallenges(r.challenges, ctl, log)
	if err != nil {
		return err
	}
	names, err := openDNS(ctx, r.dns, ctl)
	if err != nil {
		return err
	}
	if names != nil {
		defer names.Close()
	}
	f := &follower{ui: a.ui, source: ctl, farm: parsed.Farm.Name, wait: r.wait}
	for _, s := range parsed.Farm.Sites {
		f.sites = append(f.sites, s.Name)
	}
	if err := f.begin(ctx); err != nil {
		return err
	}
	if err := a.applyHere(ctx, ctl, text, r.file); err != nil {
		return err
	}
	var ended error
	err = together(ctx, ctl.Run, challenges.serve, func(ctx context.Context) error {
		ended = a.follow(ctx, f)
		return nil
	})
	return errors.Join(ended, err)
}

// applyHere applies a farm.yaml in this process, if it changes something.
func (a *app) applyHere(ctx context.Context, ctl *controller.Controller, text []byte, file string) error {
	p, err := ctl.Plan(ctx, text, file)
	if err != nil {
		return err
	}
	if len(p.Changes) == 0 && p.Revision > 0 {
		return nil
	}
	if !a.json {
		a.showPlan(p)
	}
	applied, err := ctl.Apply(ctx, text, file, person(), p.Revision)
	if err == nil && a.json {
		err = a.object(object{"applied", applied.Farm, applied})
	}
	return err
}

var _ source = (*controller.Controller)(nil)
