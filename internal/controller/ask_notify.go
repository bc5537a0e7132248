package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/store"
)

// Notifications is who is told, how they hear, and what is being told.
type Notifications struct {
	At        time.Time       `json:"at"`
	Receivers []ReceiverState `json:"receivers"`
	Ping      *PingState      `json:"ping,omitempty" doc:"the sign of life to a service outside; not there: none is sent"`
	Notices   []OpenNotice    `json:"notices" doc:"what people are told of now, the newest first"`
}

// A ReceiverState is one receiver, and how it hears.
type ReceiverState struct {
	farm.Hearing
	Kind    string   `json:"kind"`
	Gets    []string `json:"gets" doc:"what its routes let through, in words"`
	Waiting int      `json:"waiting" doc:"messages on their way"`
}

// A PingState is how the sign of life goes out.
type PingState struct {
	farm.Hearing
	Every time.Duration `json:"every" doc:"how often, in nanoseconds"`
}

// An OpenNotice is something that people are told of until it is over.
type OpenNotice struct {
	ID     string            `json:"id"`
	Cause  string            `json:"cause"`
	Opened time.Time         `json:"opened"`
	Open   []notify.Affected `json:"open" doc:"what is still so"`
	Told   []string          `json:"told" doc:"receivers that know"`
}

// Notifications tells who is told, and of what.
func (c *Controller) Notifications(ctx context.Context, farmName string) (n Notifications, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		n, err = notifications(ctx, tx, farmName)
		return err
	})
	return n, err
}

func notifications(ctx context.Context, tx *store.Tx, farmName string) (Notifications, error) {
	n := Notifications{At: tx.Now(), Notices: []OpenNotice{}}
	settings, err := tx.Settings(ctx, farmName)
	if err != nil {
		return n, err
	}
	if n.Receivers, err = receivers(ctx, tx, farmName, settings.Notifications); err != nil {
		return n, err
	}
	if p := settings.Notifications.Ping; p != nil {
		h, err := tx.Hearing(ctx, farmName, wordPing)
		if err != nil {
			return n, err
		}
		h.Receiver = "ping"
		n.Ping = &PingState{h, p.Every}
	}
	rows, err := tx.Notices(ctx, farmName)
	for _, r := range rows {
		if err := n.add(r); err != nil {
			return n, err
		}
	}
	slices.SortStableFunc(n.Notices, func(a, b OpenNotice) int { return b.Opened.Compare(a.Opened) })
	return n, err
}

// receivers are those of farm.yaml, with how they hear.
func receivers(ctx context.Context, tx *store.Tx, farmName string, rules farm.Notifications) ([]ReceiverState, error) {
	waiting, err := tx.OnTheWay(ctx, farmName)
	if err != nil {
		return nil, err
	}
	all := []ReceiverState{}
	for _, r := range rules.Receivers {
		h, err := tx.Hearing(ctx, farmName, r.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, ReceiverState{Hearing: h, Kind: r.Kind, Gets: gets(r.Name, rules), Waiting: waiting[r.Name]})
	}
	return all, nil
}

// gets says what the routes let through to a receiver.
func gets(receiver string, rules farm.Notifications) []string {
	all := []string{}
	for _, r := range rules.Routes {
		if !slices.Contains(r.To, receiver) {
			continue
		}
		text := string(r.Severity)
		if r.Severity != farm.ForPage {
			text += " and above"
		}
		for _, more := range []struct {
			word  string
			names []string
		}{{" of sites ", r.Sites}, {" of tags ", r.Tags}, {" of events ", r.Events}} {
			if len(more.names) > 0 {
				text += more.word + strings.Join(more.names, ", ")
			}
		}
		for _, w := range r.Quiet {
			text += ", but for pages not " + w.String()
		}
		all = append(all, text)
	}
	return all
}

// add counts a notice in, if something of it is still so.
func (n *Notifications) add(r store.NoticeRow) error {
	var whole notify.Notice
	if err := json.Unmarshal(r.Doc, &whole); err != nil {
		return fmt.Errorf("notice %s: %w", r.ID, err)
	}
	o := OpenNotice{ID: whole.ID, Cause: whole.Cause, Opened: whole.Opened, Told: []string{}}
	for _, p := range whole.Parts {
		if p.Open() {
			o.Open = append(o.Open, p)
		}
	}
	for name, m := range whole.Told {
		if !m.Over {
			o.Told = append(o.Told, name)
		}
	}
	slices.Sort(o.Told)
	if len(o.Open) > 0 {
		n.Notices = append(n.Notices, o)
	}
	return nil
}

// A Trial is what became of trying a receiver.
type Trial struct {
	Receiver string        `json:"receiver"`
	Kind     string        `json:"kind"`
	Took     time.Duration `json:"took" doc:"in nanoseconds"`
	Error    string        `json:"error,omitempty" doc:"why it did not take the message; empty: it took it"`
}

// TestReceivers sends a message to a receiver, or to all where none is named, and waits
// for what becomes of it. PagerDuty is told at once that it is over.
func (c *Controller) TestReceivers(ctx context.Context, farmName, name, by string) (all []Trial, err error) {
	var settings store.Settings
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		settings, err = tx.Settings(ctx, farmName)
		return err
	})
	if err != nil {
		return nil, err
	}
	rules := settings.Notifications
	if _, there := rules.Receiver(name); name != "" && !there {
		return nil, fmt.Errorf("receiver %s: %w", name, store.ErrNotFound)
	}
	if len(rules.Receivers) == 0 {
		return nil, &Refusal{"farm.yaml names no receivers", "add notifications: to it; docs/notifications.md shows how"}
	}
	for _, r := range rules.Receivers {
		if name != "" && r.Name != name {
			continue
		}
		began := c.Now()
		t := Trial{Receiver: r.Name, Kind: r.Kind}
		if err := c.tellReceiver(ctx, farmName, r, settings.Proxy, notify.Trial(farmName, r.Name, by, store.NewID("try"), rules.URL, began)); err != nil {
			t.Error = err.Error()
		}
		t.Took = c.Now().Sub(began)
		all = append(all, t)
	}
	return all, c.trials(ctx, farmName, all)
}

// trials writes how receivers heard. What waits for one that hears goes on at once.
func (c *Controller) trials(ctx context.Context, farmName string, all []Trial) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		for _, t := range all {
			h, err := reached(ctx, tx, farmName, t.Receiver, t.Error, tx.Now())
			if err != nil {
				return err
			}
			if err := tx.PutHearing(ctx, farmName, h); err != nil {
				return err
			}
			if err := arm(ctx, tx, farmName, "deliver", t.Receiver, tx.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// ofReceivers judges how receivers hear.
func ofReceivers(n Notifications) (all []CheckupResult) {
	heard := func(name string, h farm.Hearing) CheckupResult {
		r := CheckupResult{Area: "receiver", Name: name, Verdict: CheckupOK, Saw: "it was not told anything yet"}
		switch {
		case h.Error != "":
			r.Verdict, r.Saw = CheckupFailed, fmt.Sprintf("%d times in a row: %s", h.Tries, h.Error)
		case !h.Heard.IsZero():
			r.Saw = "it took what it was told at " + h.Heard.UTC().Format("2006-01-02 15:04:05 MST")
		}
		return r
	}
	for _, s := range n.Receivers {
		r := heard(s.Receiver, s.Hearing)
		if r.Verdict == CheckupOK && s.Heard.IsZero() || r.Verdict != CheckupOK {
			r.Hint = "`certfarm notify test " + s.Receiver + "` tries it now"
		}
		all = append(all, r)
	}
	if n.Ping != nil {
		all = append(all, heard("ping", n.Ping.Hearing))
	}
	return all
}

// receiverWords are the kinds of receivers in the words that package config reads.
func receiverWords() map[string]config.Provider {
	all := map[string]config.Provider{}
	for _, k := range notify.Kinds() {
		words := config.Provider{Check: k.Check}
		for _, s := range k.Secrets {
			words.Secrets = append(words.Secrets, s.Name)
		}
		for _, o := range k.Options {
			words.Options = append(words.Options, o.Name)
		}
		all[k.Name] = words
	}
	return all
}
