// Package haproxyctl speaks HAProxy's runtime API: lines of text over its admin
// socket (management.txt, section 9.3), one connection a question. What is asked
// and what the answer means is the caller's.
package haproxyctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/certfarm/certfarm/internal/host"
)

// The bounds on one question.
const (
	askTime  = 15 * time.Second
	maxReply = 1 << 20 // bytes: a backend of thousands of servers
	shown    = 4       // words of a question that errors show: what follows may be a key
)

// ErrDown says that nobody answers at the socket.
var ErrDown = errors.New("nobody answers at the socket")

// A Host is where the socket is reached from.
type Host interface {
	host.Dialer
	host.Runner
}

// A Line is the way to one HAProxy.
type Line struct {
	Host             Host
	Network, Address string
	Command          []string // connects its input and output to the socket, in its place; empty: none
}

// Socket is the network and address that a text names: a clean absolute path, or an
// IP address with a port. Both are empty where it is neither.
func Socket(text string) (network, address string) {
	if path.IsAbs(text) && path.Clean(text) == text && text != "/" && !strings.ContainsFunc(text, unicode.IsControl) {
		return "unix", text
	}
	if a, err := netip.ParseAddrPort(text); err == nil && a.Port() > 0 {
		return "tcp", text
	}
	return "", ""
}

// Ask sends a line, or a line with a payload, and returns the reply without the
// space around it. That HAProxy says no is a reply like any other, but for a socket
// that is not allowed to do it.
func (l Line) Ask(ctx context.Context, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	words := strings.Fields(text)
	verb := strings.Join(words[:min(len(words), shown)], " ")
	var reply []byte
	var err error
	if len(l.Command) > 0 {
		reply, err = l.Host.Run(ctx, l.Command, []byte(text))
	} else {
		reply, err = l.dial(ctx, text)
	}
	if err != nil {
		return "", fmt.Errorf("asking HAProxy at %s: %s: %w", l.Address, verb, err)
	}
	if reply = bytes.TrimSpace(reply); bytes.HasPrefix(reply, []byte("Permission denied")) {
		return "", fmt.Errorf("asking HAProxy at %s: %s: permission denied: its socket needs `level admin`", l.Address, verb)
	}
	return string(reply), nil
}

func (l Line) dial(ctx context.Context, text string) ([]byte, error) {
	conn, err := l.Host.Dial(ctx, l.Network, l.Address)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, host.ErrUnreachable) {
			err = fmt.Errorf("%w: %w", ErrDown, err)
		}
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // what SSH forwards knows no deadline
	if _, err := io.WriteString(conn, text); err != nil {
		return nil, err
	}
	reply, err := io.ReadAll(io.LimitReader(conn, maxReply))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return reply, err
}
