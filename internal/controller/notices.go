package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/store"
)

// What is looked at while notices are open.
const (
	noticeEvery = 5 * time.Minute // whether they are still so, though no event came
	noticeSites = 50              // facts of sites that are read at a time
)

// A noticeBoard is what becomes of the notices of a farm: what is to be written.
type noticeBoard struct {
	put      []store.NoticeRow
	gone     []string
	messages []notify.Message
	again    time.Time
}

func (b noticeBoard) changed() bool { return len(b.put)+len(b.gone)+len(b.messages) > 0 }

// decideNotices folds events into the notices of a farm, and decides who is told.
func decideNotices(ctx context.Context, tx *store.Tx, farmName string, events []farm.Event) (b noticeBoard, err error) {
	settings, err := tx.Settings(ctx, farmName)
	if err != nil {
		return b, unlessGone(err)
	}
	rules := settings.Notifications
	rows, err := tx.Notices(ctx, farmName)
	if err != nil || len(rows) == 0 && len(rules.Receivers) == 0 {
		return b, err
	}
	var all []notify.Notice
	before := map[string][]byte{}
	for _, r := range rows {
		var n notify.Notice
		if err := json.Unmarshal(r.Doc, &n); err != nil {
			return b, fmt.Errorf("notice %s: %w", r.ID, err)
		}
		all, before[r.ID] = append(all, n), r.Doc
	}
	if all, err = foldEvents(ctx, tx, farmName, all, events, rules); err != nil {
		return b, err
	}
	if err := mend(ctx, tx, farmName, all, rules); err != nil {
		return b, err
	}
	facts, err := factsOf(ctx, tx, farmName, all)
	if err != nil {
		return b, err
	}
	return b, b.decide(all, before, rules, facts, tx.Now())
}

// foldEvents are the notices after some events.
func foldEvents(ctx context.Context, tx *store.Tx, farmName string, all []notify.Notice, events []farm.Event, rules farm.Notifications) ([]notify.Notice, error) {
	if len(rules.Receivers) == 0 {
		return nil, nil // nobody is there any more who is to be told the end
	}
	tags := map[string][]string{}
	for _, e := range events {
		if _, known := tags[e.Site]; !known && e.Site != "" {
			site, err := tx.Site(ctx, farmName, e.Site)
			if unlessGone(err) != nil {
				return nil, err
			}
			tags[e.Site] = site.Tags
		}
		all = notify.Take(all, e, tags[e.Site], rules)
	}
	return all, nil
}

// decide asks of each notice what is to be sent. before is how they are written.
func (b *noticeBoard) decide(all []notify.Notice, before map[string][]byte, rules farm.Notifications, facts map[string]notify.Facts, now time.Time) error {
	for _, n := range all {
		d := notify.Decide(n, rules, facts, now)
		b.messages = append(b.messages, d.Messages...)
		was, known := before[n.ID]
		delete(before, n.ID)
		if d.Done {
			if known {
				b.gone = append(b.gone, n.ID)
			}
			continue
		}
		doc, err := json.Marshal(d.Notice)
		if err != nil {
			return fmt.Errorf("notice %s: %w", n.ID, err)
		}
		if !bytes.Equal(doc, was) {
			b.put = append(b.put, store.NoticeRow{ID: n.ID, Doc: doc})
		}
		b.wake(now.Add(noticeEvery))
		if !d.Again.IsZero() {
			b.wake(d.Again)
		}
	}
	for id := range before { // their parts are in others now
		b.gone = append(b.gone, id)
	}
	slices.Sort(b.gone)
	return nil
}

func (b *noticeBoard) wake(at time.Time) {
	if b.again.IsZero() || at.Before(b.again) {
		b.again = at
	}
}

// write keeps the notices, and sends the messages on their way.
func (b noticeBoard) write(ctx context.Context, tx *store.Tx, farmName string) error {
	for _, r := range b.put {
		if err := tx.PutNotice(ctx, farmName, r); err != nil {
			return err
		}
	}
	for _, id := range b.gone {
		if err := tx.RemoveNotice(ctx, farmName, id); err != nil {
			return err
		}
	}
	for _, m := range b.messages {
		if err := send(ctx, tx, farmName, m); err != nil {
			return err
		}
	}
	return nil
}

// send puts a message on its way. One of the same notice that nobody tried to send yet
// gives way to it: a receiver that was away hears how it stands, and not how it came.
func send(ctx context.Context, tx *store.Tx, farmName string, m notify.Message) error {
	waiting, err := tx.Messages(ctx, farmName, m.Receiver, 0)
	if err != nil {
		return err
	}
	heard := true // of the beginning
	for _, w := range waiting {
		if w.Notice != m.Notice || w.Tries > 0 {
			continue
		}
		var old notify.Message
		if err := json.Unmarshal(w.Doc, &old); err != nil {
			return fmt.Errorf("message %s: %w", w.ID, err)
		}
		heard = heard && old.State != notify.Began
		if old.State == notify.Told {
			continue
		}
		if err := tx.RemoveMessage(ctx, farmName, m.Receiver, w.ID); err != nil {
			return err
		}
	}
	if m.State == notify.Over && !heard {
		return nil // it never heard that something was wrong
	}
	doc, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("message %s: %w", m.ID, err)
	}
	return errors.Join(
		tx.PutMessage(ctx, farmName, store.MessageRow{Receiver: m.Receiver, ID: m.ID, Notice: m.Notice, Made: m.At, Doc: doc}),
		arm(ctx, tx, farmName, "deliver", m.Receiver, tx.Now()))
}

// mend ends the parts that are not so any more although no event told: what they are
// about is gone from farm.yaml, or the event was of another kind.
func mend(ctx context.Context, tx *store.Tx, farmName string, all []notify.Notice, rules farm.Notifications) error {
	for i := range all {
		for j := range all[i].Parts {
			p := &all[i].Parts[j]
			if !p.Open() {
				continue
			}
			still, err := isStill(ctx, tx, farmName, all[i].Cause, *p, rules)
			if err != nil {
				return err
			}
			if !still {
				p.Ended = tx.Now()
			}
		}
	}
	return nil
}

// isStill reports that what the store says does not speak against a part of a notice.
func isStill(ctx context.Context, tx *store.Tx, farmName, cause string, p notify.Affected, rules farm.Notifications) (bool, error) {
	switch {
	case cause == "receiver":
		_, there := rules.Receiver(p.About)
		return there, nil
	case p.Target != "":
		return isStillOfTarget(ctx, tx, farmName, cause, p)
	case p.Site == "":
		return true, nil
	}
	cert, err := tx.Certificate(ctx, farmName, p.Site)
	if err != nil {
		return false, unlessGone(err)
	}
	switch cause {
	case "order":
		return cert.Intent != "" || cert.Failures > 0, nil
	case "rollout":
		newest, err := tx.Rollouts(ctx, farmName, p.Site, 1)
		return len(newest) == 0 || !well(newest[0].Outcome), err
	}
	_, err = tx.Site(ctx, farmName, p.Site)
	return err == nil, unlessGone(err)
}

func isStillOfTarget(ctx context.Context, tx *store.Tx, farmName, cause string, p notify.Affected) (bool, error) {
	place, err := tx.Place(ctx, farmName, p.Target)
	if err != nil || place.Released {
		return false, unlessGone(err)
	}
	switch cause {
	case "reach":
		return place.Reach != farm.ReachUp, nil
	case "drift":
		return place.Drift != "", nil
	case "stuck":
		return place.Standing() != farm.InSync, nil
	}
	return true, nil
}

// well reports that a rollout brought its version to where it should be.
func well(o farm.Outcome) bool { return o == farm.Done || o == farm.DonePartly }

// factsOf is what is known of the sites that notices are about.
func factsOf(ctx context.Context, tx *store.Tx, farmName string, all []notify.Notice) (map[string]notify.Facts, error) {
	facts := map[string]notify.Facts{}
	for _, n := range all {
		for _, p := range n.Parts {
			if _, known := facts[p.Site]; known || p.Site == "" || len(facts) >= noticeSites {
				continue
			}
			f, err := factsOfSite(ctx, tx, farmName, p.Site)
			if unlessGone(err) != nil {
				return nil, err
			}
			if err == nil {
				facts[p.Site] = f
			}
		}
	}
	return facts, nil
}

func factsOfSite(ctx context.Context, tx *store.Tx, farmName, site string) (f notify.Facts, err error) {
	p, err := progress(ctx, tx, farmName, site)
	if err != nil {
		return f, err
	}
	f = notify.Facts{Site: site, Leaf: p.Version, Until: p.NotAfter, Targets: p.Targets, InStep: p.InStep}
	versions, err := everHeld(ctx, tx, farmName, site)
	if err != nil {
		return f, err
	}
	for _, v := range versions {
		if leafOf(v) == p.Version {
			f.From = v.NotBefore()
		}
	}
	waits := p.Rollout != "" && p.Waits != "" && p.Again.IsZero()
	do, err := remedy(ctx, tx, farmName, p, waits, false)
	if err != nil {
		return f, err
	}
	f.Do = "certfarm describe site " + site
	if do == Approve || do == Resume {
		f.Do = "certfarm rollout " + do + " " + site
	}
	f.Next, f.NextAt, err = nextOf(ctx, tx, farmName, p)
	return f, err
}

// nextOf is what happens next to a site by itself, and when.
func nextOf(ctx context.Context, tx *store.Tx, farmName string, p Progress) (string, time.Time, error) {
	switch {
	case p.Waits != "":
		return p.Waits, p.Again, nil
	case p.Rollout != "":
		return "the rollout goes on", time.Time{}, nil
	case !p.Retry.IsZero():
		return "the version that was put back is rolled out again", p.Retry, nil
	case p.InStep < p.Targets:
		look, err := tx.Job(ctx, farmName, "look", p.Name)
		return "its targets are looked at again, and brought up to date as soon as they answer", look.RunAt, unlessGone(err)
	}
	return "the certificate is looked at, and renewed when it is due", p.Next, nil
}
