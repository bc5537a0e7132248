package farm

import "time"

// A Campaign is the replacement of many certificates, since they are not to be relied
// on any more: their CA says so, or a person does.
type Campaign struct {
	ID       string    `json:"id,omitzero"`
	Farm     string    `json:"farm,omitzero"`
	By       string    `json:"by,omitzero"` // who began it
	Reason   string    `json:"reason,omitzero"`
	Issuer   string    `json:"issuer,omitzero"` // whose certificates are replaced
	Begun    time.Time `json:"begun,omitzero"`
	Total    int       `json:"total"` // certificates
	Ended    time.Time `json:"ended,omitzero"`
	Canceled string    `json:"canceled,omitzero"` // who ended it before all were replaced
	Left     int       `json:"left,omitzero"`     // certificates that it did not replace: it was canceled, or a later one took them over
	Paused   string    `json:"paused,omitzero"`   // who stopped it for now
	Why      string    `json:"why,omitzero"`      // it is paused
	Excused  int       `json:"excused,omitzero"`  // rollouts that had failed when a person last had it go on
}

// A Replacement is a certificate's part in a campaign: one version of it is to give
// way to another.
type Replacement struct {
	Campaign string    `json:"campaign,omitzero"`
	Version  string    `json:"version,omitzero"` // that is replaced
	At       time.Time `json:"at,omitzero"`      // when it may be ordered
	Why      string    `json:"why,omitzero"`
	Held     bool      `json:"held,omitzero"`   // not ordered while the campaign is paused
	Failed   bool      `json:"failed,omitzero"` // the last rollout of the new one was put back, or stopped
}
