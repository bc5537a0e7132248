// Package dnsserve is an authoritative name server for zones that hold nothing
// but ACME answers: the owner of a farm delegates such a zone to the controllers,
// and needs no DNS provider with an API.
//
//	CA ──UDP/TCP──→ reply ──→ zones (kept for seconds) ──→ Source
//	                     └──→ values (asked for each query) ──→ Source
//
// Its invariant: an answer with authority is what the source says now. Where the
// source cannot be asked the answer is SERVFAIL, never "there is nothing", so any
// number of controllers may be the name servers of one zone. It recurses for
// nobody, says no more than eight times what it is asked over UDP, and no packet
// makes it fail.
package dnsserve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Zone is a delegated zone. Names are full and without the last dot.
type Zone struct {
	Name string
	// Servers are its name servers, as its parent must list them; the first is
	// named as primary in the SOA.
	Servers []NameServer
	Contact string // mail address of who cares for it (RFC 1035 §3.3.13); empty: hostmaster@ the zone
	CAA     []CAA  // who may issue for names below it; empty: it does not say
	// TTL is how long a resolver may keep a value, or that there is none (RFC 2308
	// §5), in whole seconds; 0: DefaultTTL.
	TTL time.Duration
}

// DefaultTTL is short: a resolver that asks before the value is put up must soon
// ask again.
const DefaultTTL = 5 * time.Second

// A NameServer is a name server of a zone: a controller, as the world sees it.
type NameServer struct {
	Host      string
	Addresses []netip.Addr // needed where the host lies in the zone; else unused
}

// A CAA is one Certification Authority Authorization record (RFC 8659 §4).
type CAA struct {
	Flag  uint8
	Tag   string
	Value string
}

// A Source knows zones and values: the store. Names are full, in lower case and
// without the last dot.
type Source interface {
	// Zones are those that are served. They are kept for a few seconds.
	Zones(ctx context.Context) ([]Zone, error)
	// Values are the TXT values at a name. They are asked for each query.
	Values(ctx context.Context, name string) ([]string, error)
	// Below reports whether there are values at any name below this one: such a
	// name exists, though it has none itself (RFC 8020). It is asked only about
	// names that have no values.
	Below(ctx context.Context, name string) (bool, error)
}

// Config says what is served where.
type Config struct {
	Source Source
	// Addresses are those to listen at, host:port; UDP and TCP each. Port 0 is any
	// port that is free for both.
	Addresses []string
	// Rate is how many answers over UDP a source network (/24, /56) gets in a
	// second before it is sent to TCP; 0: DefaultRate.
	Rate int
}

// DefaultRate lets a CA's resolver check a few hundred names at once.
const DefaultRate = 200

// Stats counts what happened since the start.
type Stats struct {
	Queries   uint64 // packets that were taken for queries
	Answered  uint64 // with authority
	Refused   uint64 // of other zones, and operations that are not offered
	Malformed uint64 // that could not be read
	Limited   uint64 // sent to TCP, or not answered, by the rate limit
	Truncated uint64 // sent to TCP since the answer is too large for UDP
	Failed    uint64 // the source could not be asked
	Turned    uint64 // TCP connections closed for others, or not taken
}

type counters struct {
	queries, answered, refused, malformed, limited, truncated, failed, turned atomic.Uint64
}

// Server is a running name server.
type Server struct {
	responder *responder
	lines     []*line
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// Listen serves until the context ends or Close is called. When it returns, all
// addresses are open; an error closes those that were.
func Listen(ctx context.Context, c Config) (*Server, error) {
	if c.Source == nil || len(c.Addresses) == 0 {
		return nil, errors.New("serving DNS: a source and an address are needed")
	}
	s := &Server{responder: newResponder(c)}
	for _, address := range c.Addresses {
		l, err := open(ctx, address, s.responder)
		if err != nil {
			for _, opened := range s.lines {
				opened.close()
			}
			return nil, fmt.Errorf("serving DNS at %s: %w", address, err)
		}
		s.lines = append(s.lines, l)
	}
	ctx, s.stop = context.WithCancel(ctx)
	for _, l := range s.lines {
		l.serve(ctx, &s.running)
	}
	return s, nil
}

// Addresses are those that it listens at, with the ports that were found, in the
// order of the config.
func (s *Server) Addresses() []string {
	var all []string
	for _, l := range s.lines {
		all = append(all, l.udp.LocalAddr().String())
	}
	return all
}

// Stats tells what happened so far.
func (s *Server) Stats() Stats {
	n := &s.responder.count
	return Stats{
		Queries: n.queries.Load(), Answered: n.answered.Load(), Refused: n.refused.Load(), Malformed: n.malformed.Load(),
		Limited: n.limited.Load(), Truncated: n.truncated.Load(), Failed: n.failed.Load(), Turned: n.turned.Load(),
	}
}

// Close takes no further query, and returns when those that were taken are
// answered.
func (s *Server) Close() {
	s.stop()
	s.Wait()
}

// Wait returns when the server has ended.
func (s *Server) Wait() {
	s.running.Wait()
	for _, l := range s.lines {
		l.close()
	}
}
