package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// TLS is the Prober that makes real handshakes. Its zero value is ready for use,
// by many goroutines at once.
type TLS struct {
	Timeout time.Duration    // for one handshake, from dialling on; zero: 10 s
	Now     func() time.Time // the clock that certificates' dates are held against; nil: time.Now
	Memory  *Memory          // of chains, from one question to the next; nil: none
}

const (
	defaultTimeout = 10 * time.Second
	// inFlight samples of one series run at the same time. A server with many
	// workers tends to give connections that come one after another to one and
	// the same worker; connections that overlap are spread.
	inFlight = 4
)

// Probe makes q.Samples plain handshakes, as any client would, and then, for a
// sort of key that was asked for and not shown, as many in TLS 1.2 with the
// suites of that sort alone. It exchanges keys on the curve that every server has,
// and where one turns that away in whatever way it knows: what it serves does not
// depend on it.
//
// A sort that could not be asked for is a line of NotSeen, the key type first:
// "rsa2048: why". One that was asked for and refused is simply not there.
//
// A server that proves its key and then insists on a certificate of ours has
// answered. Where some samples fail and others do not, the sight is answered,
// has an Error, and Confidence 0.
func (p TLS) Probe(ctx context.Context, q Question) (farm.Sight, error) {
	a, err := p.asker(q)
	if err != nil {
		return farm.Sight{}, fmt.Errorf("probe %s: %w", q.Endpoint.Address, err)
	}
	s := a.survey(ctx)
	for _, l := range s.looks {
		if l.ours {
			return farm.Sight{}, fmt.Errorf("probe %s: %w", q.Endpoint.Address, l.err)
		}
	}
	// A deadline that passes is the endpoint's silence; a caller that gives up is not.
	if errors.Is(ctx.Err(), context.Canceled) {
		return farm.Sight{}, fmt.Errorf("probe %s: %w", q.Endpoint.Address, context.Cause(ctx))
	}
	return a.sight(s), nil
}

// An asker is one question, made ready.
type asker struct {
	q       Question
	roots   *x509.CertPool // nil: the system's
	memory  *Memory
	dial    host.Dialer
	begin   dialogue // nil: TLS from the first byte
	timeout time.Duration
	now     time.Time
}

func (p TLS) asker(q Question) (*asker, error) {
	a := &asker{q: q, dial: q.Through, timeout: p.Timeout, now: time.Now(), memory: p.Memory}
	if p.Now != nil {
		a.now = p.Now()
	}
	if a.memory == nil {
		a.memory = NewMemory() // the samples of one question show one chain, too
	}
	if a.timeout <= 0 {
		a.timeout = defaultTimeout
	}
	if a.q.Samples < 1 {
		a.q.Samples = 1
	}
	if a.dial == nil {
		a.dial = direct{}
		if q.Endpoint.Path == "ssh" {
			return nil, errors.New("its path is ssh, and no line to the node was given")
		}
	}
	if q.Endpoint.Proxy < 0 || q.Endpoint.Proxy > 2 {
		return nil, fmt.Errorf("PROXY protocol version %d is unknown; there are 1 and 2", q.Endpoint.Proxy)
	}
	var err error
	if q.Roots != "" {
		if a.roots, err = a.memory.pool(q.Roots); err != nil {
			return nil, err
		}
	}
	a.begin, err = dialogueFor(q.Endpoint.StartTLS)
	return a, err
}

// direct dials from this machine.
type direct struct{}

// Dial opens a connection of our own.
func (direct) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1} // it lives for one handshake
	return d.DialContext(ctx, network, address)
}

// A look is what one connection showed.
type look struct {
	chain   []*x509.Certificate // as served; nil: none was shown
	proven  bool                // the server proved that it has the leaf's key
	version uint16              // of TLS, where the handshake was completed
	refused bool                // connected, and turned away before any certificate
	away    bool                // nobody took the connection
	ours    bool                // err is our own trouble: the endpoint was not asked
	err     error
}

// A wish narrows what a handshake offers. The zero wish offers everything.
type wish struct {
	max    uint16
	suites []uint16
	curves []tls.CurveID
}

// lean are the NIST curves. P-256 is the one that every server of TLS 1.3 has (RFC
// 8446 §9.1), and costs a fraction of ML-KEM, which crypto/tls offers by itself: a
// rollout of many certificates is mostly handshakes. Nothing is sent after them that
// would have to stay secret.
var lean = []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521}

// series makes n new connections with the same wish, on the lean curves. Where every
// one is turned away as a server does that shares none of them, n others offer all
// there are. One of several that is turned away is a worker that fails.
func (a *asker) series(ctx context.Context, w wish, n int) []look {
	w.curves = lean
	looks := a.times(ctx, w, n)
	if slices.ContainsFunc(looks, func(l look) bool { return !l.apart() }) {
		return looks
	}
	w.curves = nil
	return a.times(ctx, w, n)
}

// apart reports that the server found nothing in common with what was offered: it
// must say so with one of these (RFC 8446 §4.1.1).
func (l look) apart() bool {
	const handshakeFailure, insufficientSecurity = tls.AlertError(40), tls.AlertError(71)
	told, ok := errors.AsType[*net.OpError](l.err)
	return ok && l.refused && (told.Err.Error() == handshakeFailure.Error() || told.Err.Error() == insufficientSecurity.Error())
}

// times makes n new connections with the same wish.
func (a *asker) times(ctx context.Context, w wish, n int) []look {
	looks := make([]look, n)
	slots := make(chan struct{}, inFlight)
	var wg sync.WaitGroup
	for i := range looks {
		slots <- struct{}{}
		wg.Go(func() {
			looks[i] = a.look(ctx, w)
			<-slots
		})
	}
	wg.Wait()
	return looks
}

// look makes one connection and one handshake.
func (a *asker) look(ctx context.Context, w wish) (l look) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	conn, err := a.dial.Dial(ctx, "tcp", a.q.Endpoint.Address)
	if err != nil {
		return look{err: inTime(ctx, err), away: true, ours: ourTrouble(err)}
	}
	defer conn.Close()
	// A channel inside SSH knows no deadlines, so the line is closed instead.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	if err := a.prepare(conn); err != nil {
		return look{err: inTime(ctx, err)}
	}
	client := tls.Client(conn, a.config(w, &l))
	err = client.Handshake() // which ends with ctx: the line is closed then
	switch {
	case err == nil:
		l.proven, l.version = true, client.ConnectionState().Version
		_ = client.Close() // with the alert that ends a session in order
	case l.proven: // it wants a certificate of ours
	case l.chain != nil:
		l.err = fmt.Errorf("shows leaf %s without proof of its key: %w", farm.Short(farm.Fingerprint(l.chain[0].Raw)), inTime(ctx, err))
	default:
		l.err, l.refused = inTime(ctx, err), ctx.Err() == nil
	}
	return l
}

// prepare says what has to be said before TLS begins.
func (a *asker) prepare(conn net.Conn) error {
	if v := a.q.Endpoint.Proxy; v != 0 {
		if _, err := conn.Write(proxyHeader(v, conn.LocalAddr(), conn.RemoteAddr())); err != nil {
			return fmt.Errorf("send the PROXY header: %w", err)
		}
	}
	if a.begin == nil {
		return nil
	}
	if err := converse(a.begin, conn); err != nil {
		return fmt.Errorf("STARTTLS (%s): %w", a.q.Endpoint.StartTLS, err)
	}
	return nil
}

// config lets every certificate through, since judging it is our own work (see
// distrust), and keeps what it sees in l, even where the handshake then fails.
func (a *asker) config(w wish, l *look) *tls.Config {
	return &tls.Config{
		ServerName:         a.q.Endpoint.SNI,
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS10, // nothing is sent through it: to see is all
		MaxVersion:         w.max,
		CipherSuites:       w.suites,
		CurvePreferences:   w.curves,
		VerifyConnection: func(s tls.ConnectionState) error {
			l.chain = s.PeerCertificates
			return nil
		},
		// Called only after the server's signature was checked, in TLS 1.2 and 1.3.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			l.proven = true
			return &tls.Certificate{}, nil
		},
	}
}

// inTime says that time ran out, where that is the cause.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	return err
}

// ourTrouble tells a failure to ask from an endpoint's refusal.
func ourTrouble(err error) bool {
	const wsaNetUnreachable = syscall.Errno(10051) // what Windows says for ENETUNREACH
	if errors.Is(err, host.ErrUnreachable) || errors.Is(err, host.ErrHostKey) ||
		errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, wsaNetUnreachable) {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	sys, ok := errors.AsType[*os.SyscallError](err)
	return ok && sys.Syscall == "socket" // no socket to be had: too many open files
}
