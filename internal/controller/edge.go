package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// In a site with strategy edge TLS ends at the proxies. The nodes behind them are never
// changed; farm.yaml may name them, and then they are looked at: what they serve for the
// site's names by themselves is what clients meet that come past the proxies.

// behindSoon is how long before its end a certificate of a node behind is told of.
const behindSoon = 14 * 24 * time.Hour

// lookBehind says what is wrong with what nodes behind the edges serve, by address;
// an empty text: nothing. One that serves no TLS is as it should be.
func (c *Controller) lookBehind(ctx context.Context, w watched) map[string]string {
	if len(w.site.Behind) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	all := map[string]string{}
	for _, e := range w.site.Behind {
		s, err := c.Prober.Probe(ctx, probe.Question{Endpoint: e, Names: w.site.Names, Roots: w.roots[w.site.Issuer], Samples: 1})
		if ctx.Err() != nil {
			return all // what was not asked is as it was
		}
		all[e.Address] = ""
		if err == nil && s.Answered {
			all[e.Address] = w.behind(s, c.Now())
		}
	}
	return all
}

// behind judges what one of them was seen to serve.
func (w watched) behind(s farm.Sight, now time.Time) string {
	ours := slices.ContainsFunc(s.Names, func(n string) bool { return slices.Contains(w.site.Names, n) })
	if !ours {
		return ""
	}
	for _, v := range w.versions {
		if slices.ContainsFunc(s.Fingerprint, func(f string) bool { return slices.Contains(v.Fingerprints(), f) }) {
			return "serves a certificate of the edges: their key is there, too, and nobody renews it there"
		}
	}
	date := s.NotAfter.UTC().Format("2006-01-02 15:04 MST")
	switch {
	case !now.Before(s.NotAfter):
		return "serves a certificate for the site's names that expired at " + date
	case s.NotAfter.Sub(now) < behindSoon:
		return "serves a certificate for the site's names that expires at " + date + ", and nobody renews it here"
	}
	return ""
}

// noticedBehind tells once what is wrong behind the edges, and when it is over.
func noticedBehind(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, seen map[string]string) error {
	for address, is := range seen {
		word := "behind " + site.Name + " " + address
		was, err := tx.Word(ctx, farmName, word)
		if err != nil {
			return err
		}
		if is == was {
			continue
		}
		if err := tx.SetWord(ctx, farmName, word, is); err != nil {
			return err
		}
		e := farm.Event{Farm: farmName, Site: site.Name, About: address, Kind: "behind.well", Text: address + ", behind the edges, serves nothing any more that is wrong"}
		if is != "" {
			e.Kind, e.Level = "behind.wrong", farm.Warn
			e.Text, e.Hint = fmt.Sprintf("%s, behind the edges, %s", address, is), "nothing is changed there; end TLS at the edges only, or make it a target of a site of its own"
		}
		if err := tell(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}
