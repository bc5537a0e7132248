package farm

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits is what a CA allows. A Rate that is zero is not known, or there is none.
type Limits struct {
	Orders   Rate   `json:"orders,omitzero"`   // new orders of an account
	Domain   Rate   `json:"domain,omitzero"`   // certificates for one registered domain, from all accounts
	Names    Rate   `json:"names,omitzero"`    // certificates for exactly the same names
	Accounts Rate   `json:"accounts,omitzero"` // new accounts from one address
	Failures Rate   `json:"failures,omitzero"` // failed validations of one name by an account
	Exempt   string `json:"exempt,omitzero"`   // which renewals do not count: ExemptARI, or ExemptNone; empty: not said
}

// What Limits.Exempt says.
const (
	ExemptARI  = "ari"  // those that replace a certificate within the window that the CA suggests (RFC 9773 §5)
	ExemptNone = "none" // all count
)

// A Rate is a token bucket: Count at once, and Count more in each Per, little by
// little.
type Rate struct {
	Count int           `json:"count"`
	Per   time.Duration `json:"per"`
}

// String is how farm.yaml writes it: "300 per 3h"; empty: there is none.
func (r Rate) String() string {
	if r == (Rate{}) {
		return ""
	}
	per := r.Per.String()
	if r.Per%(24*time.Hour) == 0 {
		per = strconv.Itoa(int(r.Per/(24*time.Hour))) + "d"
	} else if h, whole := strings.CutSuffix(per, "0m0s"); whole {
		per = h
	}
	return fmt.Sprintf("%d per %s", r.Count, per)
}
