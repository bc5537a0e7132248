package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/dnspersist"
	"github.com/certfarm/certfarm/internal/store"
)

// A name whose dns-persist-01 record people were told of has this word, with what
// they were told.
const wordRecord = "record "

// recordsEvery is how often the records of dns-persist-01 are looked at.
const recordsEvery = 24 * time.Hour

// A recorded is what was seen of the record of one name.
type recorded struct {
	name    string
	urgency string // empty: all is well
	text    string
}

// workRecords looks at the dns-persist-01 records of a site: nothing else of ours
// asks for them until an order does, and then it is late to mend them.
func (c *Controller) workRecords(ctx context.Context, j farm.Job) farm.Result {
	p, err := c.preflightOf(ctx, j.Farm, j.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return farm.Result{}
	}
	if err != nil {
		return farm.Result{Err: err}
	}
	var seen []recorded
	for _, name := range p.names {
		if farm.ValidationOf(p.validations, name).Method != farm.DNSPersist01 {
			continue
		}
		if p.account.URL == "" { // the record names the account
			return farm.Result{Again: c.Now().Add(c.Pace.Late)}
		}
		r, err := p.record(ctx, name, c.Now())
		if err != nil {
			return farm.Result{Err: err}
		}
		seen = append(seen, r)
	}
	if len(seen) == 0 {
		return farm.Result{}
	}
	return farm.Result{Value: seen, Again: c.Now().Add(recordsEvery)}
}

// record looks at the record of one name.
func (p preflight) record(ctx context.Context, name string, now time.Time) (recorded, error) {
	r := recorded{name: name}
	issuers, err := p.identities(ctx)
	if err != nil {
		return r, err
	}
	s, err := dnspersist.Check(ctx, dnsOf(p.settings, false), persisting(name, issuers, p.account.URL), now)
	if err != nil {
		return r, err
	}
	if !s.Matches {
		r.urgency, r.text = "wrong", "the record that proves "+name+" is not right: "+s.Problem
		return r, nil
	}
	urgency, _ := dnspersist.Warning(s.Until, now)
	if urgency != dnspersist.Calm {
		r.urgency = string(urgency)
		r.text = fmt.Sprintf("the record that proves %s ends at %s: set it anew with a later persistUntil", name, s.Until.UTC().Format("2006-01-02 15:04 MST"))
	}
	return r, nil
}

// applyRecords tells of a record when it becomes worse, and when it is well again.
func (c *Controller) applyRecords(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	seen, _ := f.Result.Value.([]recorded)
	for _, r := range seen {
		word := wordRecord + r.name
		told, err := tx.Word(ctx, f.Job.Farm, word)
		if err != nil {
			return err
		}
		if told == r.urgency {
			continue
		}
		e := farm.Event{Farm: f.Job.Farm, Site: f.Job.Subject, About: r.name, Kind: "record." + r.urgency, Level: farm.Alarm, Text: r.text}
		e.Hint = "`certfarm snippet " + f.Job.Subject + " --dns` prints the record"
		switch dnspersist.Urgency(r.urgency) {
		case dnspersist.Calm:
			e.Kind, e.Level, e.Text, e.Hint = "record.right", farm.Info, "the record that proves "+r.name+" is right", ""
		case dnspersist.Soon:
			e.Level = farm.Warn
		}
		if err := errors.Join(tell(ctx, tx, e), tx.SetWord(ctx, f.Job.Farm, word, r.urgency)); err != nil {
			return err
		}
	}
	return nil
}
