package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// A port is a TCP port of 127.0.0.1 that stays ours while nothing listens on
// it: the UDP port of the same number is held for as long, and every lab on the
// machine asks for that one first.
//
// It lies below the ranges that systems hand out to outgoing connections (32768
// and up on Linux, 49152 on Windows and macOS), so that no client takes it while
// a fault has closed it.
type port struct {
	addr string
	hold net.PacketConn
}

const lowestPort, highestPort = 10_000, 32_767

// reserve finds a port on which listen succeeds. It holds it until Close.
func reserve(listen func(addr string) error) (*port, error) {
	var last error
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowestPort+rand.IntN(highestPort-lowestPort+1)))
		hold, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", addr)
		if err != nil {
			last = err
			continue
		}
		if last = listen(addr); last == nil {
			return &port{addr, hold}, nil
		}
		_ = hold.Close()
	}
	return nil, fmt.Errorf("find a free port on 127.0.0.1: %w", last)
}

// Close gives the port back.
func (p *port) Close() error { return p.hold.Close() }
