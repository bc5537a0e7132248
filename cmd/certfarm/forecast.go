package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

func newForecast(a *app) *cobra.Command {
	var ask controller.ForecastAsk
	var lifetime, pause string
	c := a.inFarm(&cobra.Command{
		Use: "forecast", GroupID: groupFarm, Short: "Play the next days forward against the limits of the CAs",
		Long: `Forecast says for each issuer how many orders each day will bring, how much of
its limits they take, what would have to wait and what would expire. It asks
nobody and changes nothing: it plays forward what is stored, the certificate
with the least life left first, as orders really go. Where a site has issuers
in turn, it says which orders go to another than the first, and for which sites.

With flags it says what would be: more names, another lifetime, or some time in
which nothing is ordered. Names that are added have the issuers that most sites
have, each as a site of its own.

The exit code is 1 if a certificate would expire, 3 if one would have to wait.`,
		Example: "certfarm forecast\ncertfarm forecast --add-names 500 --under example.com\ncertfarm forecast --lifetime 6d --pause 7d",
		Args:    args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if ask.Lifetime, err = days("--lifetime", lifetime); err != nil {
				return err
			}
			if ask.Pause, err = days("--pause", pause); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				r, err := c.Forecast(cmd.Context(), farmName, ask)
				if err != nil {
					return err
				}
				return a.showForecast(farmName, r)
			})
		},
	})
	f := c.Flags()
	f.IntVar(&ask.Days, "days", 90, "how far to look")
	f.IntVar(&ask.AddNames, "add-names", 0, "with so many new sites of one name")
	f.StringVar(&ask.Under, "under", "", "the domain of those names (default: each has its own)")
	f.StringVar(&lifetime, "lifetime", "", "with certificates that live so long from now on, 45d or 160h (default: as now)")
	f.StringVar(&pause, "pause", "", "with nothing ordered so long from now, 7d or 12h")
	return c
}

// days reads 45d, 160h or nothing.
func days(flag, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	var d time.Duration
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16)
	if d = time.Duration(n) * 24 * time.Hour; err != nil || !strings.HasSuffix(s, "d") {
		d, err = time.ParseDuration(s)
	}
	if err != nil || d <= 0 {
		return 0, usage("write it as 45d or 160h", "%s %q is no length of time", flag, s)
	}
	return d, nil
}

func (a *app) showForecast(farmName string, r controller.ForecastReport) error {
	code := exitDone
	for _, i := range r.Issuers {
		switch {
		case len(i.Lapses) > 0:
			code = exitFailed
		case i.Waited > 0 && code == exitDone:
			code = exitPartly
		}
	}
	if a.json {
		if err := a.object(object{"forecast", farmName, r}); err != nil {
			return err
		}
		return quiet(code)
	}
	for n, i := range r.Issuers {
		if n > 0 {
			a.print("")
		}
		a.showIssuerForecast(i)
	}
	return quiet(code)
}

func (a *app) showIssuerForecast(i controller.IssuerForecast) {
	limits := "no limits are known; say them in farm.yaml"
	if l := i.Limits; l.Orders.Count > 0 || l.Domain.Count > 0 {
		limits = "new orders " + dash(l.Orders.String()) + ", for one domain " + dash(l.Domain.String())
	}
	a.print("%s: %s, %s in %d days (%s)", i.Issuer, farm.Count(i.Certificates, "certificate"), farm.Count(i.Orders, "order"), len(i.Days), limits)
	var rows [][]cell
	for _, d := range i.Days {
		waiting, expired := plain, plain
		if d.Waiting > 0 {
			waiting = warn
		}
		if d.Expired > 0 {
			expired = bad
		}
		rows = append(rows, []cell{
			{text: d.Begins.UTC().Format("2006-01-02")}, {text: strconv.Itoa(d.Orders)}, {text: share(d.Used)}, {text: dash(d.Domain)}, {text: share(d.DomainUsed)},
			{strconv.Itoa(d.Waiting), waiting}, {strconv.Itoa(d.Expired), expired},
		})
	}
	a.table([]string{"DAY", "ORDERS", "OF LIMIT", "WORST DOMAIN", "OF LIMIT", "WAITING", "EXPIRED"}, rows)
	switch l := i.Longest; {
	case i.Waited == 0:
		a.print("Nothing has to wait for the limits.")
	case l.Until.IsZero():
		a.print("%s would wait for the limits; %s longest, from %s to the end and beyond.", farm.Count(i.Waited, "renewal"), l.Site, day(l.From))
	default:
		a.print("%s would wait for the limits; %s longest, from %s until %s.%s", farm.Count(i.Waited, "renewal"), l.Site, day(l.From), day(l.Until), drained(i.Forecast))
	}
	for _, p := range i.InPlaceOf() {
		a.print("In place of %s: %s for %s, from %s: %s", p.For, farm.Count(p.Orders, "order"), farm.Count(len(p.Sites), "site"), day(p.From), some(p.Sites, mostShown))
	}
	if len(i.Lapses) > 0 {
		var names []string
		for _, x := range i.Lapses {
			names = append(names, x.Site+" at "+day(x.At))
		}
		a.print("%s", a.tint(a.out, bad, farm.Count(len(i.Lapses), "certificate")+" would expire: "+some(names, mostShown)))
	}
}

// drained says when nobody waits any more.
func drained(f budget.Forecast) string {
	if f.Drained.IsZero() {
		return " Some wait at the end."
	}
	return " Nobody waits after " + day(f.Drained) + "."
}

// share is a part of a limit, as a percentage.
func share(of float64) string {
	if of == 0 {
		return "–"
	}
	return strconv.Itoa(int(of*100+0.5)) + "%"
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
