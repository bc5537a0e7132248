package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A source is what a follower asks: the client of a controller, or a controller
// in the same process.
type source interface {
	Progress(ctx context.Context, farmName string, sites ...string) ([]controller.Progress, error)
	Rollout(ctx context.Context, farmName, idOrSite string) (farm.Rollout, error)
	Events(ctx context.Context, farmName string, q store.EventQuery) ([]farm.Event, error)
	Follow(ctx context.Context, farmName string, q store.EventQuery, f func(farm.Event) error) error
}

// A follower shows what sites are busy with until they rest: as a picture that
// moves on a terminal, as plain lines elsewhere, or as lines of JSON. Take its
// measure with begin before what is to be followed, and then run it.
//
//	f := &follower{ui: u, source: c, farm: "shop", sites: []string{"www"}}
//	err := f.begin(ctx)
//	… apply …
//	results, err := f.run(ctx)
type follower struct {
	ui       *ui
	source   source
	farm     string
	sites    []string
	wait     time.Duration // at most; 0: to the end
	detaches bool          // what is followed goes on elsewhere when this process ends
	one      bool          // one rollout is followed, and not what else a site is busy with, such as an order

	after  string            // id of the last event that is known
	before map[string]string // the newest rollout of each site at the beginning
	views  []siteView
	shown  shower
}

// A siteView is what is shown of one site.
type siteView struct {
	progress controller.Progress
	rollout  *farm.Rollout // of what is followed; nil: none yet
	over     bool          // it rests, or waits for longer than patience
}

// patience is how long a follower waits for something that goes on by itself. A
// window that opens tonight, or a person's assent, is not waited for.
const patience = 10 * time.Minute

// begin notes what was there before what is to be followed.
func (f *follower) begin(ctx context.Context) error {
	f.before = map[string]string{}
	last, err := f.source.Events(ctx, f.farm, store.EventQuery{Newest: true, Limit: 1})
	if err != nil {
		return err
	}
	if len(last) > 0 {
		f.after = last[0].ID
	}
	for _, s := range f.sites {
		r, err := f.source.Rollout(ctx, f.farm, s)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil && r.Outcome != farm.Running {
			f.before[s] = r.ID
		}
	}
	return nil
}

// run shows what happens until every site rests or waits for long, and returns
// how it ended. When the context ends before, the results say how far it was.
func (f *follower) run(ctx context.Context) ([]siteResult, error) {
	if f.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.wait)
		defer cancel()
	}
	f.shown = f.ui.shower(f.farm)
	f.views = make([]siteView, len(f.sites))
	for i, s := range f.sites {
		f.views[i].progress = controller.Progress{SiteStatus: controller.SiteStatus{Name: s}}
	}
	err := f.watch(ctx)
	f.shown.end(f.views)
	var results []siteResult
	for _, v := range f.views {
		results = append(results, ended(v.progress, v.rollout))
	}
	return results, err
}

// The pace of following: how often it looks when nothing is heard, and how long
// it collects what it hears before it looks.
const (
	lookEvery = time.Second
	collect   = 80 * time.Millisecond
)

func (f *follower) watch(ctx context.Context) error {
	following, stop := context.WithCancel(ctx)
	heard, lost, gone := make(chan farm.Event), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(gone)
		lost <- f.source.Follow(following, f.farm, store.EventQuery{After: f.after}, func(e farm.Event) error {
			select {
			case heard <- e:
				return nil
			case <-following.Done():
				return following.Err()
			}
		})
	}()
	err := f.listen(ctx, heard, lost)
	stop()
	<-gone
	if err == nil {
		err = f.rest(ctx)
	}
	return err
}

func (f *follower) listen(ctx context.Context, heard <-chan farm.Event, lost <-chan error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := f.look(ctx); err != nil {
			return err
		}
		f.shown.draw(f.views)
		if !slices.ContainsFunc(f.views, func(v siteView) bool { return !v.over }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-lost:
			return err
		case <-tick.C:
		case e := <-heard:
			f.hear(e)
			f.gather(ctx, heard)
		}
	}
}

// gather takes what comes within a moment: one look is enough for all of it.
func (f *follower) gather(ctx context.Context, heard <-chan farm.Event) {
	moment := time.NewTimer(collect)
	defer moment.Stop()
	for {
		select {
		case e := <-heard:
			f.hear(e)
		case <-moment.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (f *follower) hear(e farm.Event) {
	f.after = e.ID
	if e.Site == "" || slices.Contains(f.sites, e.Site) || slices.Contains(f.sites, farm.WholeOf(e.Site)) {
		f.shown.event(e)
	}
}

// rest shows the events that were written before the end and not heard yet.
func (f *follower) rest(ctx context.Context) error {
	events, err := f.source.Events(ctx, f.farm, store.EventQuery{After: f.after, Limit: 1000})
	for _, e := range events {
		f.hear(e)
	}
	return err
}

// look asks how far the sites are that are not over.
func (f *follower) look(ctx context.Context) error {
	var asked []string
	for _, v := range f.views {
		if !v.over {
			asked = append(asked, v.progress.Name)
		}
	}
	all, err := f.source.Progress(ctx, f.farm, asked...)
	if err != nil {
		return err
	}
	for _, p := range all {
		i := slices.Index(f.sites, p.Name)
		if i < 0 {
			continue
		}
		v := &f.views[i]
		v.progress = p
		v.over = p.Rest || f.late(p)
		if p.Newest == "" || p.Newest == f.before[p.Name] {
			continue
		}
		r, err := f.source.Rollout(ctx, f.farm, p.Newest)
		if err != nil {
			return err
		}
		f.saw(v, r)
	}
	return nil
}

// saw takes a rollout into a view. Where one is followed, its end is all.
func (f *follower) saw(v *siteView, r farm.Rollout) {
	v.rollout = &r
	if f.one && r.Outcome != farm.Running && r.Outcome != farm.Superseded {
		v.over, v.progress.Rest = true, true
	}
}

// late reports that nothing can happen for longer than is waited for.
func (f *follower) late(p controller.Progress) bool {
	if f.one && p.Rollout == "" {
		return false // what waits is not the rollout
	}
	return p.Waits != "" && (p.Again.IsZero() || p.Again.After(f.ui.now().Add(patience)))
}

// A shower shows what a follower sees.
type shower interface {
	event(e farm.Event)
	draw(views []siteView)
	end(views []siteView)
}

// shower is the one for where the results go.
func (u *ui) shower(farmName string) shower {
	switch {
	case u.json:
		return jsonLines{u, farmName}
	case isTerminal(u.err) && !u.dumb():
		return &picture{ui: u, began: u.now()}
	}
	return plainLines{u}
}

// jsonLines tells events as lines of JSON; the caller prints the result.
type jsonLines struct {
	ui   *ui
	farm string
}

func (j jsonLines) event(e farm.Event) {
	_ = j.ui.object(object{"event", j.farm, e}) // where nobody reads, nobody misses it
}
func (jsonLines) draw([]siteView) {}
func (jsonLines) end([]siteView)  {}

// plainLines tells events as lines with times, for logs.
type plainLines struct{ ui *ui }

func (p plainLines) event(e farm.Event)   { p.ui.say("%s", p.ui.eventLine(e, 12)) }
func (p plainLines) draw([]siteView)      {}
func (p plainLines) end(views []siteView) {}

// eventLine is an event on one line: time, what it is about, what happened.
func (u *ui) eventLine(e farm.Event, wide int) string {
	about, text := subject(e)
	text = oneLine(text)
	line := fmt.Sprintf("%s  %-*s  %s", e.At.Local().Format("15:04:05"), wide, about, text)
	return u.tint(u.err, toneOf(e), line)
}

// subject is what an event is about, and what it says without naming it again.
func subject(e farm.Event) (about, text string) {
	about, text = e.Site, e.Text
	if e.Node != "" {
		about = e.Node
	}
	if e.Target != "" {
		about = place(e.Target)
		for _, before := range []string{e.Target + " is ", e.Target + ": ", e.Target + " "} {
			if rest, ok := strings.CutPrefix(text, before); ok {
				text = rest
				break
			}
		}
	}
	if word, ok := strings.CutPrefix(e.Kind, "step."); ok && !strings.HasPrefix(text, word) {
		text = word + ": " + text
	}
	if about == "" {
		about = "farm"
	}
	return about, text
}

// place is a target's name without its site and kind: "shop/nginx@web1" is web1.
func place(target string) string {
	if _, node, ok := strings.Cut(target, "@"); ok {
		return node
	}
	return target
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func toneOf(e farm.Event) tone {
	switch e.Level {
	case farm.Alarm:
		return bad
	case farm.Warn:
		return warn
	}
	if e.Kind == "step.verified" || e.Kind == "rollout.done" {
		return good
	}
	return plain
}
