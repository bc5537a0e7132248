package web

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
)

// A what-if is what a forecast is asked with, as it stands in the address.
type whatIf struct {
	Names    string `json:"-"` // sites that are added
	Lifetime string `json:"-"` // days
	Pause    string `json:"-"` // days
}

// scenario reads what a forecast is asked with.
func scenario(q *question) (w whatIf, ask controller.ForecastAsk, err error) {
	v := q.URL.Query()
	w = whatIf{v.Get("names"), v.Get("lifetime"), v.Get("pause")}
	var lifetime, pause int
	for _, n := range []struct {
		text string
		into *int
	}{{w.Names, &ask.AddNames}, {w.Lifetime, &lifetime}, {w.Pause, &pause}} {
		if n.text == "" {
			continue
		}
		if *n.into, err = strconv.Atoi(n.text); err != nil || *n.into < 0 || *n.into > 100_000 {
			return w, ask, &controller.Refusal{Problem: fmt.Sprintf("%q is no number from 0 to 100,000", n.text)}
		}
	}
	ask.Lifetime, ask.Pause = time.Duration(lifetime)*day, time.Duration(pause)*day
	return w, ask, nil
}

const day = 24 * time.Hour

// Command is the command that gives the same.
func (w whatIf) Command() string {
	words := []string{"certfarm forecast"}
	for _, f := range []struct{ flag, value, unit string }{{"--add-names", w.Names, ""}, {"--lifetime", w.Lifetime, "d"}, {"--pause", w.Pause, "d"}} {
		if f.value != "" {
			words = append(words, f.flag+" "+f.value+f.unit)
		}
	}
	return strings.Join(words, " ")
}

// calendar is how many orders each day brings, beside what the CAs allow.
func (s *server) calendar(q *question) (any, error) {
	w, ask, err := scenario(q)
	if err != nil {
		return nil, err
	}
	q.cli = w.Command()
	r, err := s.Forecast(q.ctx(), q.farm, ask)
	return almanac{w, r}, err
}

// An almanac is a forecast as a page shows it.
type almanac struct {
	whatIf
	controller.ForecastReport
}

// Bars are the days of an issuer, drawn to the scale of its busiest.
func (almanac) Bars(f controller.IssuerForecast) (all []bar) {
	most := 1
	for _, d := range f.Days {
		most = max(most, d.Orders)
	}
	for i, d := range f.Days {
		b := bar{X: float64(i) * wide / float64(len(f.Days)), W: 0.8 * wide / float64(len(f.Days)), H: 100 * float64(d.Orders) / float64(most), Orders: d.Orders, Waiting: d.Waiting, Used: int(100 * max(d.Used, d.DomainUsed)), Day: d.Begins.UTC().Format("Jan 2")}
		switch {
		case d.Waiting > 0 || d.Expired > 0 || d.Used >= 1:
			b.Class = "full"
		case d.Used > 0.8 || d.DomainUsed > 0.8:
			b.Class = "near"
		}
		b.Y = 100 - b.H
		all = append(all, b)
	}
	return all
}

// A bar is one day.
type bar struct {
	X, Y, W, H            float64
	Orders, Waiting, Used int // Used: percent of the tightest limit
	Day, Class            string
}

// Axis are days along the bars, evenly apart.
func (almanac) Axis(f controller.IssuerForecast) (all []string) {
	for i := range 4 {
		if n := len(f.Days); n > 0 {
			all = append(all, f.Days[i*(n-1)/3].Begins.UTC().Format("Jan 2"))
		}
	}
	return all
}

// Busiest is how many orders the busiest day has.
func (almanac) Busiest(f controller.IssuerForecast) (most int) {
	for _, d := range f.Days {
		most = max(most, d.Orders)
	}
	return most
}

// Table is a line a day and issuer.
func (a almanac) Table() [][]string {
	all := [][]string{{"issuer", "day", "orders", "waiting", "expired", "used_percent"}}
	for _, i := range a.Issuers {
		for _, d := range i.Days {
			all = append(all, []string{i.Issuer, d.Begins.UTC().Format(time.DateOnly), text(d.Orders), text(d.Waiting), text(d.Expired), text(int(100 * d.Used))})
		}
	}
	return all
}
