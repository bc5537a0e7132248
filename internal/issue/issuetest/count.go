package issuetest

import (
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
)

// An Endpoint is one of the CA's resources, as requests are counted.
type Endpoint string

// The endpoints of RFC 8555 §7.1 and RFC 9773 §4.1.
const (
	Directory   Endpoint = "directory"
	NewNonce    Endpoint = "newNonce"
	NewAccount  Endpoint = "newAccount"
	Account     Endpoint = "account"
	NewOrder    Endpoint = "newOrder"
	Order       Endpoint = "order"
	Finalize    Endpoint = "finalize"
	Authz       Endpoint = "authz"
	Challenge   Endpoint = "challenge"
	Certificate Endpoint = "certificate"
	Revoke      Endpoint = "revoke"
	RenewalInfo Endpoint = "renewalInfo"
	Other       Endpoint = "other"
)

// EndpointOf says which endpoint a request is for.
func EndpointOf(r *http.Request) Endpoint {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch first {
	case "dir":
		return Directory
	case "nonce-plz":
		return NewNonce
	case "sign-me-up":
		return NewAccount
	case "my-account":
		return Account
	case "order-plz":
		return NewOrder
	case "my-order":
		return Order
	case "finalize-order":
		return Finalize
	case "authZ":
		return Authz
	case "chalZ":
		return Challenge
	case "certZ":
		return Certificate
	case "revoke-cert":
		return Revoke
	case "draft-ietf-acme-ari-03":
		return RenewalInfo
	}
	return Other
}

// Stats is what a CA has seen. Sets of names are sorted and joined by commas.
type Stats struct {
	Requests     map[Endpoint]int // all of them, those that a fault answered too
	Orders       map[string]int   // orders opened, by set of names
	Finalized    map[string]int   // orders whose finalization was begun
	Certificates map[string]int   // certificates issued
}

// Total is the number of requests.
func (s Stats) Total() (n int) {
	for _, of := range s.Requests {
		n += of
	}
	return n
}

// Stats reports what the CA has seen so far.
func (c *CA) Stats() Stats {
	c.inside.Lock()
	defer c.inside.Unlock()
	c.count.Lock()
	defer c.count.Unlock()
	s := Stats{
		Requests: maps.Clone(c.count.requests),
		Orders:   map[string]int{}, Finalized: map[string]int{}, Certificates: map[string]int{},
	}
	for _, id := range c.count.orders {
		order := c.store.GetOrderByID(id)
		order.RLock()
		var names []string
		for _, i := range order.Identifiers {
			names = append(names, i.Value)
		}
		slices.Sort(names)
		set := strings.Join(names, ",")
		s.Orders[set]++
		if order.BeganProcessing {
			s.Finalized[set]++
		}
		if order.CertificateObject != nil {
			s.Certificates[set]++
		}
		order.RUnlock()
	}
	return s
}

type counter struct {
	sync.Mutex
	requests map[Endpoint]int
	orders   []string // ids
}

// handler counts, lets the faults in, and sends one request at a time to Pebble.
func (c *CA) handler(pebble http.Handler, wrap func(http.Handler) http.Handler) http.Handler {
	var inner http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.inside.Lock()
		defer c.inside.Unlock()
		pebble.ServeHTTP(w, r)
		switch EndpointOf(r) {
		case NewOrder:
			c.opened(w.Header().Get("Location"))
		case Finalize:
			c.settle(path.Base(r.URL.Path))
		}
	})
	if wrap != nil {
		inner = wrap(inner)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.count.Lock()
		if c.count.requests == nil {
			c.count.requests = map[Endpoint]int{}
		}
		c.count.requests[EndpointOf(r)]++
		c.count.Unlock()
		inner.ServeHTTP(w, r)
	})
}

func (c *CA) opened(location string) {
	if location == "" {
		return // refused
	}
	c.count.Lock()
	defer c.count.Unlock()
	c.count.orders = append(c.count.orders, path.Base(location))
}
