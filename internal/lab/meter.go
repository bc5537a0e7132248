package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Serving makes one new TLS connection to address and returns the fingerprint
// of the leaf that it got. It trusts everything: it tells what is served, not
// whether that is right.
func Serving(ctx context.Context, address, sni string) (fingerprint string, err error) {
	d := tls.Dialer{Config: &tls.Config{
		ServerName:         sni,
		InsecureSkipVerify: true, // it only looks
	}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", fmt.Errorf("ask %s what it serves for %s: %w", address, sni, err)
	}
	defer func() { _ = c.Close() }()
	seen := c.(*tls.Conn).ConnectionState().PeerCertificates // tls.Dialer documents the type
	return farm.Fingerprint(seen[0].Raw), nil
}

// A Meter asks an endpoint for its certificate again and again, at a bounded
// rate, and keeps when it served what and when it did not answer.
type Meter struct {
	c      MeterConfig
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	reading Reading
}

// MeterConfig says what a meter asks.
type MeterConfig struct {
	Address string
	SNI     string
	Every   time.Duration // between the begin of one handshake and the next; 0: 50 ms
	Timeout time.Duration // of one handshake; 0: 2 s
}

// A Reading is what a meter has seen.
type Reading struct {
	Tries    int
	Failures int
	Outage   time.Duration // the longest time from a failure to the next answer
	Spans    []Span        // in order of time; the oldest are dropped beyond maxSpans
}

// A Span is a time in which an endpoint answered the same each time.
type Span struct {
	Fingerprint string // empty: it did not answer
	Error       string // then, the first reason
	From, To    time.Time
	Tries       int
}

// maxSpans bounds what a meter keeps of an endpoint that changes at every look.
const maxSpans = 4096

// StartMeter begins to ask, until Close.
func StartMeter(c MeterConfig) *Meter {
	if c.Every <= 0 {
		c.Every = 50 * time.Millisecond
	}
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Second
	}
	m := &Meter{c: c}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.wg.Go(func() { m.run(ctx) })
	return m
}

func (m *Meter) run(ctx context.Context) {
	tick := time.NewTicker(m.c.Every)
	defer tick.Stop()
	for {
		m.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Meter) look(ctx context.Context) {
	begun := time.Now()
	limited, cancel := context.WithTimeout(ctx, m.c.Timeout)
	defer cancel()
	fingerprint, err := Serving(limited, m.c.Address, m.c.SNI)
	if err != nil && ctx.Err() != nil {
		return // our own end, not the endpoint's
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reading.note(fingerprint, err, begun)
}

// note adds one look at the endpoint.
func (r *Reading) note(fingerprint string, err error, at time.Time) {
	r.Tries++
	if err != nil {
		r.Failures++
	}
	if n := len(r.Spans); n > 0 {
		last := &r.Spans[n-1]
		if last.Fingerprint == "" {
			r.Outage = max(r.Outage, at.Sub(last.From))
		}
		if last.Fingerprint == fingerprint {
			last.To = at
			last.Tries++
			return
		}
	}
	s := Span{Fingerprint: fingerprint, From: at, To: at, Tries: 1}
	if err != nil {
		s.Error = err.Error()
	}
	r.Spans = append(r.Spans, s)
	r.Spans = r.Spans[max(0, len(r.Spans)-maxSpans):]
}

// Served lists the fingerprints that were seen, each once, in the order of
// their first time.
func (r Reading) Served() []string {
	var all []string
	seen := map[string]bool{"": true}
	for _, s := range r.Spans {
		if !seen[s.Fingerprint] {
			seen[s.Fingerprint] = true
			all = append(all, s.Fingerprint)
		}
	}
	return all
}

// Reading is what was seen until now.
func (m *Meter) Reading() Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.reading
	r.Spans = append([]Span(nil), r.Spans...)
	return r
}

// Close ends the meter and returns all that it saw.
func (m *Meter) Close() Reading {
	m.cancel()
	m.wg.Wait()
	return m.Reading()
}

// Await asks an endpoint until it serves the wanted fingerprint, or nothing
// where wanted is empty. Its error says what was seen last.
func Await(ctx context.Context, address, sni, wanted string) error {
	for {
		got, err := Serving(ctx, address, sni)
		if ctx.Err() == nil && got == wanted {
			return nil
		}
		if wait(ctx, 10*time.Millisecond) != nil {
			if err == nil {
				err = fmt.Errorf("it serves %s", farm.Short(got))
			}
			return fmt.Errorf("wait until %s serves %q: %w", address, farm.Short(wanted), err)
		}
	}
}
