package budget

import (
	"time"
)

// A Cert is a certificate of which a forecast is made.
type Cert struct {
	Site     string
	Names    []string
	Issuers  []string      // that may be asked for it, in turn; none: the first of the scenario
	Orders   int           // one for each key type; 0 stands for 1
	NotAfter time.Time     // of what it has; zero: nothing
	Had      string        // the issuer of what it has; empty: its first
	Due      time.Time     // when it is ordered next
	Since    time.Time     // when it was seen to be due; zero: it is not yet
	Life     time.Duration // of what it has, and gets from the same issuer
	// Shared says that other certificates are for exactly the same names, and share what
	// the CA allows for these.
	Shared bool
}

// An Issuer is one of a scenario.
type Issuer struct {
	Name   string
	CA     string    // issuers of one CA share what it allows for a domain; empty: it is the only one
	Ledger Ledger    // what the buckets hold at Start
	Hold   time.Time // until when it takes no order at all; zero: it does
	// Life is of what it gives to a certificate that has one of another issuer; 0: as
	// that one.
	Life time.Duration
}

// An Offer is what one of a certificate's issuers says when it is due.
type Offer struct {
	Issuer string
	Why    string    // why it takes no order now; empty: it does
	Until  time.Time // until when; zero: for ever
}

// A Waiting certificate is one that is due.
type Waiting struct {
	Site      string
	Since     time.Time // when it was seen to be due
	NotBefore time.Time // of what it has; zero: nothing
	NotAfter  time.Time
}

// A Scenario is what a forecast is made of.
type Scenario struct {
	Certs   []Cert
	Issuers []Issuer
	Start   time.Time
	Days    int
	Pause   time.Duration // nothing is ordered so long from Start
	Life    time.Duration // of all that is ordered; 0: each its own
	// Before is how long before its end a site's certificate becomes due.
	Before func(site string, life time.Duration) time.Duration
	// Choose says which issuers a certificate waits for that has several, the one that
	// is asked first in front, and when that is looked at again; the zero time: never,
	// whichever has room first takes it. It is not asked about others.
	Choose func(w Waiting, offers []Offer, now time.Time) (line []string, again time.Time)
}

// A Day of a forecast.
type Day struct {
	Begins     time.Time `json:"begins"`
	Orders     int       `json:"orders"`
	Used       float64   `json:"used" doc:"most that was ever gone of the limit on new orders, from 0 to 1"`
	Domain     string    `json:"domain,omitempty" doc:"the domain, or the set of names that nodes share, that came nearest to its limit"`
	DomainUsed float64   `json:"domain_used" doc:"most that was ever gone of that domain's limit"`
	Waiting    int       `json:"waiting" doc:"certificates that are due and wait for the limits at the end of the day"`
	Expired    int       `json:"expired" doc:"certificates that expire before they are renewed"`
}

// A Delay is a certificate that waits for the limits.
type Delay struct {
	Site  string    `json:"site"`
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero" doc:"not set: it still waits when the forecast ends"`
}

// A Lapse is a certificate that expires before it is renewed.
type Lapse struct {
	Site string    `json:"site"`
	At   time.Time `json:"at"`
}

// A StandIn is a site for which an issuer is asked in place of its first.
type StandIn struct {
	Site   string    `json:"site"`
	For    string    `json:"for" doc:"the site's first issuer"`
	Orders int       `json:"orders"`
	From   time.Time `json:"from" doc:"when the first of them is ordered"`
}

// A Forecast is what comes of a scenario at one issuer. Those that wait, or expire, are
// told of at the issuer that they were to have come from.
type Forecast struct {
	Days    []Day     `json:"days"`
	Orders  int       `json:"orders"`
	Waited  int       `json:"waited" doc:"times that a certificate waited longer than ten minutes"`
	Longest Delay     `json:"longest,omitzero" doc:"the longest wait"`
	Drained time.Time `json:"drained,omitzero" doc:"when nobody waits any more; not set: nobody waited, or somebody does at the end"`
	Lapses  []Lapse   `json:"lapses,omitempty" doc:"by time"`
	// StandsIn is by site.
	StandsIn []StandIn `json:"stands_in,omitempty" doc:"sites whose first issuer cannot take their orders in time, so that this one is asked"`
}
