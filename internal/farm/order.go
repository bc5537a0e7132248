package farm

import "time"

// An Order is one try to get one leaf from a CA. Its key and CSR are stored
// before it is opened and its URL before anything depends on it, so it is
// resumed, never repeated.
//
//	new → pending → presented → accepted → ready → processing → issued → done
//	 └───────┴──────────┴──────────┴────────┴─────────┴──→ failed
type Order struct {
	ID       string   `json:"id,omitzero"`
	Farm     string   `json:"farm,omitzero"`
	Site     string   `json:"site,omitzero"`
	Intent   string   `json:"intent,omitzero"` // the orders of one intent become one version
	Issuer   string   `json:"issuer,omitzero"`
	External string   `json:"external,omitzero"` // a staging directory: the names are only proven there, nothing is issued
	Account  string   `json:"account,omitzero"`  // the account's URL at the CA; known after the first step
	Names    []string `json:"names,omitzero"`
	Profile  string   `json:"profile,omitzero"`
	KeyType  KeyType  `json:"key_type,omitzero"`
	Key      KeyRef   `json:"key,omitzero"`
	CSR      []byte   `json:"csr,omitzero"`      // DER
	Replaces string   `json:"replaces,omitzero"` // ARI certificate id (RFC 9773 §4.1); cleared when the CA refuses it

	// Validations are the site's when the order was made: what was put up by them
	// is taken away by them, whatever farm.yaml says then.
	Validations []Validation `json:"validations,omitzero"`

	State       OrderState `json:"state,omitzero"`
	URL         string     `json:"url,omitzero"`
	FinalizeURL string     `json:"finalize_url,omitzero"`
	CertURL     string     `json:"cert_url,omitzero"`
	Expires     time.Time  `json:"expires,omitzero"` // of the order at the CA
	Authz       []Authz    `json:"authz,omitzero"`
	Chain       []byte     `json:"chain,omitzero"` // PEM, leaf first; checked against the request

	Created  time.Time `json:"created,omitzero"`
	Updated  time.Time `json:"updated,omitzero"`
	Tries    int       `json:"tries"`             // failures of the current step in a row
	Again    time.Time `json:"again,omitzero"`    // when the next step may run
	Error    string    `json:"error,omitzero"`    // the last failure, for people
	Finalize time.Time `json:"finalize,omitzero"` // when finalize was sent; zero: never

	// Told is the run of the controller in which the CA was told to validate. Ours says
	// of an order that failed since nobody answered the CA's question: another run had
	// taken over by then, so that the silence was our own.
	Told string `json:"told,omitzero"`
	Ours bool   `json:"ours,omitzero"`

	// GivenUp says of an order that failed that nobody refused it: another issuer of
	// the site is asked in its place, or it is outdated.
	GivenUp bool `json:"given_up,omitzero"`
	// Outdated says that farm.yaml asked for something else before the CA was told to
	// validate: of the CA it says nothing.
	Outdated bool `json:"outdated,omitzero"`

	// Exempt says that the CA was expected not to count it, since it replaces a
	// certificate in the time that the CA suggested (RFC 9773 §5). Where Replaces was
	// refused since, it counts.
	Exempt bool `json:"exempt,omitzero"`
}

// OrderState is how far an order has come.
type OrderState string

// The states of an order.
const (
	OrderNew        OrderState = "new"        // key and CSR are durable, the CA knows nothing
	OrderPending    OrderState = "pending"    // the CA has it; challenges are to be put up
	OrderPresented  OrderState = "presented"  // every challenge is up; the CA has not been told
	OrderAccepted   OrderState = "accepted"   // the CA validates
	OrderReady      OrderState = "ready"      // validated; to be finalized
	OrderProcessing OrderState = "processing" // finalized; the CA signs
	OrderIssued     OrderState = "issued"     // the certificate may be fetched
	OrderDone       OrderState = "done"       // Chain is there
	OrderFailed     OrderState = "failed"
)

// Ended reports that nothing more will happen.
func (s OrderState) Ended() bool { return s == OrderDone || s == OrderFailed }

// An Authz is the CA's question about one name, and our answer to it.
type Authz struct {
	URL       string    `json:"url,omitzero"`
	Name      string    `json:"name,omitzero"` // without "*."
	Wildcard  bool      `json:"wildcard"`
	Expires   time.Time `json:"expires,omitzero"` // of the proof, once it is valid
	Valid     bool      `json:"valid"`            // already proven
	Accepted  bool      `json:"accepted"`         // the CA was told to look
	Challenge Challenge `json:"challenge,omitzero"`
	Receipt   []byte    `json:"receipt,omitzero"` // the solver's note; nil until it is presented
	Presented time.Time `json:"presented,omitzero"`
}

// A Challenge is what a CA asks to see for one name (RFC 8555 §8).
type Challenge struct {
	Type  string `json:"type,omitzero"` // http-01, dns-01 or dns-persist-01
	URL   string `json:"url,omitzero"`
	Name  string `json:"name,omitzero"`  // without "*."
	Token string `json:"token,omitzero"` // dns-persist-01 has none
	Value string `json:"value,omitzero"` // http-01: the key authorization (§8.1); dns-01: the TXT value made from it (§8.4)

	// Of dns-01: what Value was made from. Many providers' clients make Value themselves.
	KeyAuth string `json:"key_auth,omitzero"`

	// Of dns-persist-01: what its TXT record must say.
	Issuers  []string `json:"issuers,omitzero"` // issuer domain names, any of which will do
	Account  string   `json:"account,omitzero"` // the account's URL
	Wildcard bool     `json:"wildcard,omitzero"`
}

// Asked is the name as it stands in the order.
func (z Authz) Asked() string {
	if z.Wildcard {
		return "*." + z.Name
	}
	return z.Name
}
