// Package boulder is a second ACME CA for tests, beside Pebble (issuetest): a
// small one, with a CA of its own, that behaves as Let's Encrypt's Boulder does
// where Pebble does not. The same order again is the same order; a certificate
// has one replacement at a time; limits are token buckets; a proof is used again
// for hours or days; signing takes its time and happens once.
//
// Its invariants: every rule takes the time from Options.Now, so that weeks of
// limits pass in test time; and one lock is held for each request as a whole,
// never while a name is looked at. It has Pebble's paths, so that
// issuetest.EndpointOf and the faults made from it fit both.
package boulder

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

// Options says what kind of CA to start. Only DNS is needed.
type Options struct {
	Listen string           // host:port; empty: a free port of 127.0.0.1
	Now    func() time.Time // what every rule goes by; nil: time.Now

	DNS          string // host:port of the name server that is asked, recursive or authoritative
	HTTPPort     int    // stands for port 80; 0: 80
	HTTPSPort    int    // stands for port 443, in redirects; 0: 443
	Perspectives int    // from how many places a name is looked at, all of which must agree; 0: one
	Identity     string // the CA's name in CAA and dns-persist-01 records; empty: "ca.test"
	Persist      bool   // offer dns-persist-01

	Profiles map[string]Profile // none: LetsEncrypt()
	Default  string             // profile of an order that names none; empty: "classic"
	Limits   Limits             // the zero value limits nothing; LetsEncryptLimits() has the real ones
	Portal   string             // where the owner of a paused account is sent; empty: "https://portal.ca.test"
	Blocked  []string           // refused with rejectedIdentifier
	// EAB maps key ids to MAC keys (base64url). When there are any, a new account
	// needs one of them (RFC 8555 §7.3.4).
	EAB map[string]string

	BadNonce   int           // share of good nonces that are refused, in percent
	SignPolls  int           // how often a signed order is still seen processing
	RetryAfter time.Duration // sent with a processing order, in whole seconds (Boulder: 3 s); 0: not sent
	ARIRetry   time.Duration // sent with renewal information, give or take a fifth; 0: 6 h
	// Wrap puts faults in front of the CA; see issuetest.LoseReply and its kin.
	Wrap func(http.Handler) http.Handler
}

// A Profile is what an order may be for, and how long its parts live.
type Profile struct {
	Life         time.Duration // of a certificate
	Names        int           // most names of one
	OrderLife    time.Duration // of an order that is not finalized
	PendingAuthz time.Duration // of an authorization that is not proven
	AuthzReuse   time.Duration // of a proof
	IP           bool          // addresses are issued for
	CommonName   bool          // the certificate has one
}

// LetsEncrypt is Let's Encrypt's profiles of August 2026.
func LetsEncrypt() map[string]Profile {
	const day = 24 * time.Hour
	server := Profile{Life: 45 * day, Names: 25, OrderLife: 8 * time.Hour, PendingAuthz: time.Hour, AuthzReuse: 7 * time.Hour}
	short := server
	short.Life, short.IP = 160*time.Hour, true
	return map[string]Profile{
		"classic":    {Life: 90 * day, Names: 100, OrderLife: 7 * day, PendingAuthz: 7 * day, AuthzReuse: 30 * day, CommonName: true},
		"tlsserver":  server,
		"shortlived": short,
	}
}

// A CA is a running one. Its state is in memory only.
type CA struct {
	Directory   string // URL of the ACME directory
	ListenRoots string // PEM of the root that the directory's own certificate chains to
	Roots       string // PEM of the roots of what it issues, the default chain's first

	o      Options
	base   string // URL of the server, without a slash at the end
	keys   authority
	server *http.Server
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	work   sync.WaitGroup // the server, and every look at a name

	mu       sync.Mutex // guards all below; held for each request as a whole
	last     int        // id given last
	busy     int        // new orders that are still to be turned away
	nonces   map[string]bool
	accounts map[string]*account  // by URL
	orders   map[string]*order    // by id
	authzs   map[string]*authz    // by id
	certs    map[string]*cert     // by serial, in hex
	issued   map[string]time.Time // when a set of names was last
	buckets  buckets
	paused   map[string]bool // account and name
	stats    Stats
}

// Stats is what a CA has seen, as issuetest counts it, and what it turned away.
type Stats struct {
	issuetest.Stats
	Limited map[string]int // 429s and 503s: orders, domain, set, failures, accounts, paused, busy
}

// Start runs a CA until Close.
func Start(o Options) (*CA, error) {
	if o.DNS == "" {
		return nil, errors.New("start the CA: it needs a name server to ask: set Options.DNS")
	}
	c := &CA{
		o: o.filled(), nonces: map[string]bool{}, accounts: map[string]*account{}, orders: map[string]*order{},
		authzs: map[string]*authz{}, certs: map[string]*cert{}, issued: map[string]time.Time{}, buckets: buckets{}, paused: map[string]bool{},
		stats: Stats{Limited: map[string]int{}, Stats: issuetest.Stats{
			Requests: map[issuetest.Endpoint]int{}, Orders: map[string]int{}, Finalized: map[string]int{}, Certificates: map[string]int{}}},
	}
	if _, known := c.o.Profiles[c.o.Default]; !known {
		return nil, fmt.Errorf("start the CA: there is no profile %q, which is to be the default", c.o.Default)
	}
	front, err := c.makeKeys()
	if err != nil {
		return nil, fmt.Errorf("make the CA's keys: %w", err)
	}
	listener, err := net.Listen("tcp", cmp.Or(o.Listen, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("listen for ACME clients: %w", err)
	}
	c.base = "https://" + listener.Addr().String()
	c.Directory = c.base + "/dir"
	c.ctx, c.stop = context.WithCancel(context.Background())
	var handler http.Handler = http.HandlerFunc(c.serve)
	if o.Wrap != nil {
		handler = o.Wrap(handler)
	}
	c.server = &http.Server{
		Handler: c.counted(handler), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{front}},
	}
	c.work.Go(func() { _ = c.server.ServeTLS(listener, "", "") }) // always an error: Close was called
	return c, nil
}

func (o Options) filled() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Profiles) == 0 {
		o.Profiles = LetsEncrypt()
	}
	o.HTTPPort, o.HTTPSPort = cmp.Or(o.HTTPPort, 80), cmp.Or(o.HTTPSPort, 443)
	o.Perspectives = max(o.Perspectives, 1)
	o.Identity, o.Default = cmp.Or(o.Identity, "ca.test"), cmp.Or(o.Default, "classic")
	o.Portal, o.ARIRetry = cmp.Or(o.Portal, "https://portal.ca.test"), cmp.Or(o.ARIRetry, 6*time.Hour)
	return o
}

// Close ends the CA at once; requests and looks in flight are cut off.
func (c *CA) Close() error {
	c.mu.Lock() // see start
	c.stop()
	c.mu.Unlock()
	err := c.server.Close()
	c.work.Wait()
	if err != nil {
		return fmt.Errorf("stop the CA: %w", err)
	}
	return nil
}

// Stats reports what the CA has seen so far.
func (c *CA) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Limited: maps.Clone(c.stats.Limited), Stats: issuetest.Stats{
		Requests: maps.Clone(c.stats.Requests), Orders: maps.Clone(c.stats.Orders),
		Finalized: maps.Clone(c.stats.Finalized), Certificates: maps.Clone(c.stats.Certificates)}}
}

// Busy turns the next n new orders away as Let's Encrypt does under load: 503 of
// the type rateLimited, which is no limit.
func (c *CA) Busy(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = n
}

// Unpause does what a person does at the portal: it lets the account (by URL)
// order all its names again.
func (c *CA) Unpause(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.paused, func(key string, _ bool) bool { return strings.HasPrefix(key, account+" ") })
}

// id gives a new one. The caller holds the lock.
func (c *CA) id() string {
	c.last++
	return fmt.Sprint(c.last)
}
