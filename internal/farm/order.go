package farm

import "time"

// An Order is one try to get one leaf from a CA. Its key and CSR are stored
// before it is opened and its URL before anything depends on it, so it is
// resumed, never repeated.
//
//	new → pending → presented → accepted → ready → processing → issued → done
//	 └───────┴──────────┴──────────┴────────┴─────────┴──→ failed
type Order struct {
	ID       string
	Farm     string
	Site     string
	Intent   string // the orders of one intent become one version
	Issuer   string
	Account  string // the account's URL at the CA; known after the first step
	Names    []string
	Profile  string
	KeyType  KeyType
	Key      KeyRef
	CSR      []byte // DER
	Replaces string // ARI certificate id (RFC 9773 §4.1); cleared when the CA refuses it

	State       OrderState
	URL         string
	FinalizeURL string
	CertURL     string
	Expires     time.Time // of the order at the CA
	Authz       []Authz
	Chain       []byte // PEM, leaf first; checked against the request

	Created  time.Time
	Updated  time.Time
	Tries    int       // failures of the current step in a row
	Again    time.Time // when the next step may run
	Error    string    // the last failure, for people
	Finalize time.Time // when finalize was sent; zero: never
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
	URL       string
	Name      string
	Wildcard  bool
	Valid     bool // already proven
	Accepted  bool // the CA was told to look
	Challenge Challenge
	Receipt   []byte // the solver's note; nil until it is presented
}

// A Challenge is what a CA asks to see for one name (RFC 8555 §8).
type Challenge struct {
	Type  string // http-01
	URL   string
	Name  string
	Token string
	Value string // the key authorization (§8.1), or the TXT value made from it
}
