package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/store"
)

const aDay = 24 * time.Hour

// fill writes what became of the demo's farm.yaml.
func (d *demo) fill(ctx context.Context, tx *store.Tx) error {
	for i, s := range []struct {
		site string
		ages []time.Duration // of its versions, newest first
	}{
		{"shop", []time.Duration{12 * aDay, 72 * aDay}}, {"checkout", []time.Duration{20 * time.Minute, 60 * aDay, 122 * aDay}},
		{"login", []time.Duration{3 * time.Hour, 61 * aDay}}, {"docs", []time.Duration{40 * time.Minute, 63 * aDay}},
		{"status", []time.Duration{58 * aDay}}, {"mail", []time.Duration{33 * aDay, 85 * aDay}}, {"careers", []time.Duration{25 * aDay}},
		{"ledger@app1", []time.Duration{41 * aDay}}, {"ledger@app2", []time.Duration{40 * aDay}},
	} {
		if err := d.issue(ctx, tx, s.site, time.Duration(i)*time.Hour, s.ages); err != nil {
			return err
		}
	}
	for _, a := range []store.Agent{
		{Farm: d.Farm, Node: "app1", Pin: strings.Repeat("1f", 32), Joined: d.at.Add(-41 * aDay), Until: d.at.Add(20 * aDay), Seen: d.at.Add(-9 * time.Second), Version: "v1.4.0"},
		{Farm: d.Farm, Node: "app2", Pin: strings.Repeat("2e", 32), Joined: d.at.Add(-41 * aDay), Until: d.at.Add(20 * aDay), Seen: d.at.Add(-14 * time.Minute), Version: "v1.4.0"},
	} {
		if err := tx.PutAgent(ctx, a); err != nil {
			return err
		}
	}
	if err := d.trouble(ctx, tx); err != nil {
		return err
	}
	if err := d.rollouts(ctx, tx); err != nil {
		return err
	}
	happened, err := d.journal(ctx, tx)
	if err != nil {
		return err
	}
	return d.telling(ctx, tx, happened)
}

// issue writes a site's versions, its certificate, an order, and that every target
// serves the newest.
func (d *demo) issue(ctx context.Context, tx *store.Tx, site string, shift time.Duration, ages []time.Duration) error {
	s, err := tx.Site(ctx, d.Farm, site)
	if err != nil {
		return err
	}
	var all []farm.Version
	for _, age := range ages {
		from := d.at.Add(-age).Truncate(time.Second)
		chain, fingerprint := d.chainFor(s.Names, "E7", from, from.Add(90*aDay))
		all = append(all, farm.Version{
			ID: store.NewID("ver"), Farm: d.Farm, Site: site, Names: s.Names, Issuer: s.Issuer, Created: from, Proven: from.Add(4 * time.Minute),
			Leaves: []farm.Leaf{{Fingerprint: fingerprint, KeyType: farm.EC256, Serial: fingerprint[:32], NotBefore: from, NotAfter: from.Add(90 * aDay), Chain: chain, Key: farm.KeyRef{Sealed: "k" + fingerprint}}},
		})
	}
	d.versions[site] = all
	for _, v := range all {
		if err := tx.PutVersion(ctx, v); err != nil {
			return err
		}
	}
	newest := all[0]
	suggested := newest.NotBefore().Add(60*aDay + shift)
	c := farm.Certificate{
		Farm: d.Farm, Site: site, Version: newest.ID, Verdict: "it is not time", Next: d.at.Add(2*time.Hour + shift), LastOrder: newest.Created, Due: suggested,
		ARI: farm.Suggestion{Leaf: newest.Leaf(), Start: suggested, End: suggested.Add(2 * aDay), Chosen: suggested.Add(11 * time.Hour)},
	}
	if err := tx.PutCertificate(ctx, c); err != nil {
		return err
	}
	if err := tx.PutOrder(ctx, farm.Order{ID: store.NewID("ord"), Farm: d.Farm, Site: site, Intent: "i" + site, Issuer: s.Issuer, Names: s.Names, KeyType: farm.EC256, State: farm.OrderDone, Created: newest.Created}); err != nil {
		return err
	}
	for _, t := range s.Targets {
		if err := d.serve(ctx, tx, t.Name, newest, newest); err != nil {
			return err
		}
	}
	return nil
}

// serve writes that a target should hold one version, and was seen to serve another.
func (d *demo) serve(ctx context.Context, tx *store.Tx, target string, want, serves farm.Version) error {
	p, err := tx.Place(ctx, d.Farm, target)
	if err != nil {
		return err
	}
	looked := d.at.Add(-time.Duration(40+len(target)*7) * time.Second)
	p.Desired, p.Looked, p.Reach, p.Sights = []string{want.ID}, looked, farm.ReachUp, nil
	for _, e := range p.Target.Endpoints {
		p.Sights = append(p.Sights, farm.Sight{
			Endpoint: e, Target: target, At: looked, Answered: true, Fingerprint: serves.Fingerprints(), Names: serves.Names, NotAfter: serves.NotAfter(),
			Chain: serves.Leaves[0].Chain, Trusted: true, Samples: 3, Confidence: 0.99,
		})
	}
	return tx.PutPlace(ctx, p)
}

// trouble is what asks for a person, or soon will.
func (d *demo) trouble(ctx context.Context, tx *store.Tx) error {
	v := d.versions["mail"]
	if err := d.serve(ctx, tx, "mail/files@mail1", v[0], v[1]); err != nil {
		return err
	}
	theirs := v[0]
	chain, fingerprint := d.chainFor([]string{"careers.harbour.example"}, "GeoTrust TLS RSA CA G1", d.at.Add(-aDay), d.at.Add(364*aDay))
	theirs.Leaves = []farm.Leaf{{Fingerprint: fingerprint, NotBefore: d.at.Add(-aDay), NotAfter: d.at.Add(364 * aDay), Chain: chain}}
	theirs.Names = []string{"careers.harbour.example"}
	if err := d.serve(ctx, tx, "careers/nginx@web3", d.versions["careers"][0], theirs); err != nil {
		return err
	}
	for target, change := range map[string]func(*farm.Place){
		"mail/files@mail1": func(p *farm.Place) {
			p.Drift, p.Since = "serves an older version of ours", d.at.Add(-52*time.Minute)
		},
		"careers/nginx@web3": func(p *farm.Place) {
			p.Drift, p.Foreign, p.Since = "serves a valid certificate that is not ours, of GeoTrust TLS RSA CA G1", true, d.at.Add(-5*time.Hour)
		},
		"careers/nginx@web4": func(p *farm.Place) { p.Reach, p.Since = farm.ReachHalf, d.at.Add(-35*time.Minute) },
		"shop/nginx@web4":    func(p *farm.Place) { p.Reach, p.Since = farm.ReachHalf, d.at.Add(-35*time.Minute) },
	} {
		p, err := tx.Place(ctx, d.Farm, target)
		if err != nil {
			return err
		}
		change(&p)
		if err := tx.PutPlace(ctx, p); err != nil {
			return err
		}
	}
	c, err := tx.Certificate(ctx, d.Farm, "login")
	if err != nil {
		return err
	}
	c.Due = d.at.Add(-3 * time.Hour)
	c.Retries, c.Retry, c.Next = 1, d.at.Add(38*time.Minute), d.at.Add(38*time.Minute)
	if err := tx.PutCertificate(ctx, c); err != nil {
		return err
	}
	return tx.SetWord(ctx, d.Farm, "held lb2", "lea.brandt")
}

// rollouts are one that waits for a person, one that is paused, one that was restored,
// and those that went well.
func (d *demo) rollouts(ctx context.Context, tx *store.Tx) error {
	canary := []farm.Wave{{Name: "canary"}, {Name: "the rest"}}
	waits := []farm.Wave{{Name: "canary"}, {Name: "the rest", Approve: true}}
	for _, r := range []struct {
		site   string
		ago    time.Duration
		waves  []farm.Wave
		states []farm.State
		change func(*farm.Rollout)
	}{
		{"checkout", 18 * time.Minute, waits, []farm.State{farm.Verified, farm.Staged, farm.Staged, farm.Staged}, func(*farm.Rollout) {}},
		{"docs", 36 * time.Minute, canary, []farm.State{farm.Verified, farm.Verified, farm.Staged, farm.Staged}, func(r *farm.Rollout) { r.Paused = true }},
		{"login", 3 * time.Hour, canary, []farm.State{farm.Restored, farm.Planned, farm.Planned, farm.Planned}, func(r *farm.Rollout) {
			r.Back, r.Outcome = "login/nginx@web1: reload: nginx: [emerg] cannot load certificate key \"/etc/nginx/tls/login.pem\"", farm.RolledBack
			r.Why = "web1 failed, and the failure budget is 0: every target has what it had"
			r.Steps[0].Fault, r.Steps[0].Error = farm.NodeFault, "reload: nginx: [emerg] cannot load certificate key"
		}},
		{"shop", 12 * aDay, canary, []farm.State{farm.Verified, farm.Verified, farm.Verified, farm.Verified}, func(r *farm.Rollout) { r.Outcome, r.Why = farm.Done, "every target is verified" }},
		{"careers", 25 * aDay, canary, []farm.State{farm.Verified, farm.Verified, farm.Verified, farm.Absent}, func(r *farm.Rollout) {
			r.Outcome, r.Why = farm.DonePartly, "web4 was absent, and was brought up to date later"
		}},
	} {
		site, err := tx.Site(ctx, d.Farm, r.site)
		if err != nil {
			return err
		}
		v := d.versions[r.site]
		one := farm.Rollout{
			ID: store.NewID("ro"), Farm: d.Farm, Site: r.site, Reason: "renewal", Policy: site.Policy, Waves: r.waves, Created: d.at.Add(-r.ago),
			To: farm.VersionFacts{ID: v[0].ID, NotBefore: v[0].NotBefore(), NotAfter: v[0].NotAfter()},
		}
		for i, t := range site.Targets {
			one.Steps = append(one.Steps, farm.Step{Target: t.Name, Group: t.Group, Wave: min(i, 1), State: r.states[i], To: []string{v[0].ID}, Attempt: 1})
			if s := &one.Steps[i]; s.State == farm.Verified || s.State == farm.Active {
				s.Touched, s.Staged, s.Activated = true, one.Created.Add(20*time.Second), one.Created.Add(50*time.Second)
			}
			if s := &one.Steps[i]; s.State == farm.Verified {
				s.Verified, s.Seen = one.Created.Add(time.Minute), d.at
			}
			if r.states[i] != farm.Verified && one.Outcome == "" && len(v) > 1 {
				if err := d.serve(ctx, tx, t.Name, v[1], v[1]); err != nil {
					return err
				}
			}
		}
		if r.change(&one); one.Outcome != "" {
			one.Ended = one.Created.Add(7 * time.Minute)
		}
		if err := tx.PutRollout(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// journal is what happened lately.
func (d *demo) journal(ctx context.Context, tx *store.Tx) (happened []farm.Event, err error) {
	for _, e := range []farm.Event{
		{Kind: "target.drift", Site: "careers", Target: "careers/nginx@web3", Node: "web3", Level: farm.Alarm, Text: "careers/nginx@web3 serves a valid certificate that is not ours", Hint: "`certfarm rollout approve careers` replaces it", At: d.at.Add(-5 * time.Hour)},
		{Kind: "order.done", Site: "login", Level: farm.Info, Text: "version of login is issued: valid for 90 days", At: d.at.Add(-3*time.Hour - time.Minute)},
		{Kind: "step.failed", Site: "login", Target: "login/nginx@web1", Node: "web1", Level: farm.Warn, Text: "login/nginx@web1: reload: nginx: [emerg] cannot load certificate key", At: d.at.Add(-3 * time.Hour)},
		{Kind: "rollout.restored", Site: "login", Level: farm.Warn, Text: "login is back to what it had: web1 failed, and the failure budget is 0", Hint: "it is tried again by itself", At: d.at.Add(-3*time.Hour + time.Minute)},
		{Kind: "target.drift", Site: "mail", Target: "mail/files@mail1", Node: "mail1", Level: farm.Warn, Text: "mail/files@mail1 serves an older version of ours", Hint: "the site's drift is reported only: restore it on the page Drift", At: d.at.Add(-52 * time.Minute)},
		{Kind: "rollout.pause", Site: "docs", Actor: "lea.brandt", Level: farm.Info, Text: "lea.brandt: pause", At: d.at.Add(-33 * time.Minute)},
		{Kind: "node.hold", Node: "lb2", Actor: "lea.brandt", Level: farm.Info, Text: "lb2 is held: nothing is changed on it", At: d.at.Add(-30 * time.Minute)},
		{Kind: "rollout.started", Site: "checkout", Level: farm.Info, Text: "renewal: goes to 4 targets in 2 waves", At: d.at.Add(-18 * time.Minute)},
		{Kind: "step.verified", Site: "checkout", Target: "checkout/nginx@web1", Node: "web1", Level: farm.Info, Text: "checkout/nginx@web1 serves the new certificate, seen in 3 handshakes", At: d.at.Add(-17 * time.Minute)},
		{Kind: "rollout.waits", Site: "checkout", Level: farm.Warn, Text: "wave “the rest” of checkout waits for approval", At: d.at.Add(-12 * time.Minute)},
		{Kind: notify.Failing, About: "tickets", Level: farm.Warn, Text: "receiver tickets cannot be told: 503 Service Unavailable", Hint: "it is tried again by itself; `certfarm notify test tickets` tries it now", At: d.at.Add(-9 * time.Minute)},
	} {
		e.Farm = d.Farm
		e.ID = store.NewID("ev")
		if err := tx.AddEvent(ctx, e); err != nil {
			return nil, err
		}
		happened = append(happened, e)
	}
	return happened, nil
}

// telling is who was told of it: all but a receiver that does not hear.
func (d *demo) telling(ctx context.Context, tx *store.Tx, happened []farm.Event) error {
	settings, err := tx.Settings(ctx, d.Farm)
	if err != nil {
		return err
	}
	var all []notify.Notice
	for _, e := range happened {
		all = notify.Take(all, e, nil, settings.Notifications)
	}
	for _, n := range all {
		mark := notify.Mark{Messages: 1, At: n.Opened.Add(time.Minute), Severity: n.Parts[0].Severity}
		if n.Told = map[string]notify.Mark{"ops": mark}; mark.Severity == farm.ForPage {
			n.Told["on-call"] = mark
		}
		doc, err := json.Marshal(n)
		if err != nil {
			return err
		}
		if err := tx.PutNotice(ctx, d.Farm, store.NoticeRow{ID: n.ID, Doc: doc}); err != nil {
			return err
		}
	}
	for i := range 3 {
		m := store.MessageRow{Receiver: "tickets", ID: fmt.Sprint("m", i), Notice: all[0].ID, Made: d.at.Add(-9 * time.Minute), Tries: 1, Doc: json.RawMessage("{}")}
		if err := tx.PutMessage(ctx, d.Farm, m); err != nil {
			return err
		}
	}
	for _, h := range []farm.Hearing{
		{Receiver: "on-call", Heard: d.at.Add(-5 * time.Hour)},
		{Receiver: "ops", Heard: d.at.Add(-11 * time.Minute)},
		{Receiver: "tickets", Heard: d.at.Add(-26 * time.Hour), Failed: d.at.Add(-2 * time.Minute), Error: "503 Service Unavailable: the desk is being moved", Tries: 5, Next: d.at.Add(6 * time.Minute)},
		{Receiver: "ping…", Heard: d.at.Add(-50 * time.Second)}, // as the controller keeps it: no receiver can have the name
	} {
		if err := tx.PutHearing(ctx, d.Farm, h); err != nil {
			return err
		}
	}
	return nil
}
