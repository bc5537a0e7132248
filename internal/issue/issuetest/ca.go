// Package issuetest is a real ACME CA for tests and for the lab: Pebble, run in
// the caller's process, that validates over HTTP-01 as a CA does and misbehaves
// on purpose (bad nonces, shuffled answers, and whatever Options.Wrap adds).
//
// Its invariant: one request at a time is inside Pebble. Pebble v2.10.1 locks an
// authorization and its store in both orders and deadlocks under concurrent
// orders; a mutex around its handler prevents that. Validation itself runs
// beside it.
package issuetest

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Options says what kind of CA to start. The zero value is one that validates
// at port 80 through the system's resolver.
type Options struct {
	Listen   string // host:port; empty: a free port of 127.0.0.1
	DNS      string // host:port of the resolver the CA asks, over TCP; empty: the system's
	HTTPPort int    // where the CA asks for HTTP-01 answers; 0: 80
	TLSPort  int    // where it asks for TLS-ALPN-01 answers; 0: 443

	// Profiles are the offered ACME profiles and how long their certificates
	// live. None: one, "default", of 90 days. An order that names no profile gets
	// any of them, at random.
	Profiles map[string]time.Duration
	// BadNonce is the share of good nonces that are refused, in percent; 0 stands
	// for 5, and a negative number for none.
	BadNonce int
	// RetryAfter is sent with what is pending or processing, in whole seconds; 0: not sent.
	RetryAfter time.Duration
	// AuthzReuse is how often a valid authorization is used again, in percent.
	AuthzReuse int
	// AlternateRoots is how many other chains each certificate has.
	AlternateRoots int
	// ChainLength is the number of intermediates; 0: one.
	ChainLength int
	// EAB maps key ids to MAC keys (base64url). When there are any, a new account
	// needs one of them (RFC 8555 §7.3.4).
	EAB map[string]string
	// Blocked names are refused with rejectedIdentifier.
	Blocked []string
	// Wrap puts faults in front of the CA; see LoseReply and Answer.
	Wrap func(http.Handler) http.Handler
}

// A CA is a running Pebble.
type CA struct {
	Directory   string // URL of the ACME directory
	ListenRoots string // PEM of the root that the directory's own certificate chains to
	Roots       string // PEM of the roots of what it issues, the default chain's first

	store  *db.MemoryStore
	server *http.Server
	done   chan struct{}

	inside sync.Mutex // held while a request is in Pebble
	count  counter
}

// Start runs a CA until Close. Its state is in memory only: a CA that is started
// again knows no account and has other roots.
func Start(o Options) (*CA, error) {
	front, roots, err := newListenCert()
	if err != nil {
		return nil, fmt.Errorf("certificate of the CA's own endpoint: %w", err)
	}
	c := &CA{ListenRoots: roots, store: db.NewMemoryStore(), done: make(chan struct{})}
	pebble, err := c.pebble(o)
	if err != nil {
		return nil, err
	}
	address := o.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for ACME clients at %s: %w", address, err)
	}
	c.Directory = "https://" + listener.Addr().String() + wfe.DirectoryPath
	c.server = &http.Server{
		Handler:           c.handler(pebble, o.Wrap),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{front}},
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		defer close(c.done)
		_ = c.server.ServeTLS(listener, "", "") // always an error: Close was called
	}()
	return c, nil
}

// Close ends the CA at once; requests in flight are cut off. (Pebble's validator
// leaves one idle goroutine behind, which nothing can end.)
func (c *CA) Close() error {
	err := c.server.Close()
	<-c.done
	if err != nil {
		return fmt.Errorf("stop the CA: %w", err)
	}
	return nil
}

// settings guards the environment while a Pebble reads its settings from there,
// the only way to tell it these.
var settings sync.Mutex

func (c *CA) pebble(o Options) (http.Handler, error) {
	settings.Lock()
	defer settings.Unlock()
	for name, value := range map[string]int{
		"PEBBLE_VA_NOSLEEP":      1,
		"PEBBLE_WFE_NONCEREJECT": o.badNonce(),
		"PEBBLE_AUTHZREUSE":      o.AuthzReuse,
	} {
		if err := os.Setenv(name, strconv.Itoa(value)); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	for id, key := range o.EAB {
		if err := c.store.AddExternalAccountKeyByID(id, key); err != nil {
			return nil, fmt.Errorf("external account key %q: %w", id, err)
		}
	}
	for _, name := range o.Blocked {
		if err := c.store.AddBlockedDomain(name); err != nil {
			return nil, fmt.Errorf("blocked name %q: %w", name, err)
		}
	}
	quiet := log.New(io.Discard, "", 0)
	authority := ca.New(quiet, c.store, "", "ecdsa", o.AlternateRoots, max(o.ChainLength, 1), o.profiles())
	for i := range authority.GetNumberOfRootCerts() {
		c.Roots += string(authority.GetRootCert(i).PEM())
	}
	validator := va.New(quiet, orElse(o.HTTPPort, 80), orElse(o.TLSPort, 443), false, o.DNS, c.store)
	wait := int(o.RetryAfter / time.Second)
	front := wfe.New(quiet, c.store, validator, authority, []string{"ca.test"}, false, len(o.EAB) > 0, wait, wait)
	return front.Handler(), nil
}

func (o Options) badNonce() int {
	if o.BadNonce < 0 {
		return 0
	}
	return orElse(o.BadNonce, 5)
}

func (o Options) profiles() map[string]ca.Profile {
	lives := o.Profiles
	if len(lives) == 0 {
		lives = map[string]time.Duration{"default": 90 * 24 * time.Hour}
	}
	all := map[string]ca.Profile{}
	for name, life := range lives {
		all[name] = ca.Profile{Description: "certificates of " + life.String(), ValidityPeriod: uint64(life / time.Second)}
	}
	return all
}

func orElse(n, other int) int {
	if n == 0 {
		return other
	}
	return n
}

// A Window is what the CA is to suggest for a certificate (RFC 9773 §4.2).
type Window struct {
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	Explanation string    `json:"-"`
}

// SetARI makes the CA suggest the window for a leaf that it issued (PEM).
func (c *CA) SetARI(leaf []byte, w Window) error {
	answer, err := json.Marshal(map[string]any{"suggestedWindow": w, "explanationURL": w.Explanation})
	if err != nil {
		return fmt.Errorf("renewal information: %w", err)
	}
	return c.SetARIText(leaf, string(answer))
}

// SetARIText makes the CA answer any text at all when it is asked for renewal
// information of the leaf.
func (c *CA) SetARIText(leaf []byte, answer string) error {
	block, _ := pem.Decode(leaf)
	if block == nil {
		return errors.New("set renewal information: the leaf is not PEM")
	}
	serial, err := serialOf(block.Bytes)
	if err != nil {
		return fmt.Errorf("set renewal information: %w", err)
	}
	c.inside.Lock()
	defer c.inside.Unlock()
	return c.store.SetARIResponse(serial, answer)
}

// Revoked reports whether a leaf that the CA issued (PEM) is revoked, and for
// which reason (RFC 5280 §5.3.1).
func (c *CA) Revoked(leaf []byte) (reason int, revoked bool) {
	block, _ := pem.Decode(leaf)
	if block == nil {
		return 0, false
	}
	c.inside.Lock()
	defer c.inside.Unlock()
	found := c.store.GetRevokedCertificateByDER(block.Bytes)
	if found == nil {
		return 0, false
	}
	if found.Reason != nil {
		reason = int(*found.Reason)
	}
	return reason, true
}
