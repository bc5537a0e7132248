package dnsserve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	udpWorkers = 32             // queries over UDP that one address answers at a time
	tcpWorkers = 32             // over TCP
	maxPacket  = dns.MaxMsgSize // bytes of a query over UDP; where one is cut, Windows fails instead
	pause      = 20 * time.Millisecond
	portTries  = 20
)

// A line is one address, open for UDP and TCP.
type line struct {
	responder *responder
	udp       *net.UDPConn
	tcp       net.Listener
	guests    *guests
}

// open opens both; where the port is 0 it looks for one that is free for both.
func open(ctx context.Context, address string, r *responder) (*line, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	tries := 1
	if port == "0" {
		tries = portTries
	}
	for range tries {
		var l *line
		if l, err = openPort(ctx, host, port, r); err == nil {
			return l, nil
		}
	}
	return nil, hinted(err)
}

func openPort(ctx context.Context, host, port string, r *responder) (*line, error) {
	var lc net.ListenConfig
	packets, err := lc.ListenPacket(ctx, "udp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	udp, ok := packets.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("UDP gave a %T", packets), packets.Close())
	}
	_, bound, err := net.SplitHostPort(udp.LocalAddr().String())
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	tcp, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, bound))
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	// An answer must come from the address that was asked, which is not known of a
	// wildcard socket unless each packet says so. Systems that cannot say it answer
	// from their main address.
	_ = ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	_ = ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	return &line{responder: r, udp: udp, tcp: tcp, guests: newGuests(&r.count)}, nil
}

// hinted adds what can be done.
func hinted(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another program has the port (often systemd-resolved or a local resolver); give this machine's own address instead of a wildcard", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: ports below 1024 need root or CAP_NET_BIND_SERVICE", err)
	}
	return err
}

func (l *line) close() {
	_ = l.udp.Close()
	_ = l.tcp.Close()
}

// serve answers until the context ends.
func (l *line) serve(ctx context.Context, running *sync.WaitGroup) {
	stopped := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(stopped)
		past := time.Unix(1, 0)
		_ = l.udp.SetReadDeadline(past) // wakes the workers; the answers in flight are still written
		_ = l.tcp.Close()
		l.guests.hurry(past)
	})
	for range udpWorkers {
		running.Go(func() { l.packets(ctx) })
	}
	running.Go(func() {
		l.accept(ctx)
		<-stopped
	})
}

// packets is one worker: reading is the queue, so what cannot be answered in time
// is dropped by the kernel.
func (l *line) packets(ctx context.Context) {
	work := context.WithoutCancel(ctx) // a query that was taken is answered
	buffer := make([]byte, maxPacket)
	for ctx.Err() == nil {
		n, session, err := dns.ReadFromSessionUDP(l.udp, buffer)
		if err != nil {
			rest(ctx) // such as an ICMP message for an earlier answer
			continue
		}
		from, ok := session.RemoteAddr().(*net.UDPAddr)
		if !ok || from.Port == 0 {
			continue
		}
		answer := l.responder.guarded(work, query{packet: buffer[:n], from: from.AddrPort().Addr(), udp: true, at: time.Now()})
		if answer != nil {
			_, _ = dns.WriteToSessionUDP(l.udp, answer, session)
		}
	}
}

// rest keeps a socket that fails at once from keeping a processor busy.
func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// accept takes connections, and returns when all of them have ended.
func (l *line) accept(ctx context.Context) {
	var talks sync.WaitGroup
	defer talks.Wait()
	slots := make(chan struct{}, tcpWorkers)
	for ctx.Err() == nil {
		conn, err := l.tcp.Accept()
		if err != nil {
			rest(ctx) // no file descriptors left, perhaps
			continue
		}
		g := l.guests.enter(conn)
		if g == nil {
			_ = conn.Close()
			continue
		}
		talks.Go(func() {
			defer l.guests.leave(g)
			l.talk(ctx, g, slots)
		})
	}
}

// talk answers the queries of one connection, one after the other.
func (l *line) talk(ctx context.Context, g *guest, slots chan struct{}) {
	work := context.WithoutCancel(ctx)
	for range maxQueries {
		packet, err := l.guests.read(ctx, g)
		if err != nil {
			return
		}
		slots <- struct{}{}
		answer := l.responder.guarded(work, query{packet: packet, from: g.from, at: time.Now()})
		<-slots
		if answer == nil {
			return
		}
		_ = g.conn.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := g.conn.Write(framed(answer)); err != nil {
			return
		}
	}
}

// readMessage reads one message with its length before it. What is not sent takes
// no memory, whatever the length says.
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	length := int64(binary.BigEndian.Uint16(size[:]))
	var message bytes.Buffer
	if _, err := io.CopyN(&message, r, length); err != nil {
		return nil, err
	}
	return message.Bytes(), nil
}

// source is the address of the other end.
func source(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}
