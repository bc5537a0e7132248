package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/certfarm/certfarm/internal/host"
)

// Line is a Caller over a command line: the receiver of a node, which is the forced
// command of the login there. The call is what it reads, the answer what it writes.
type Line struct{ Host host.Runner }

// mark stands before the answer, on a line of its own: whatever else a login writes
// stands elsewhere.
const mark = "certfarm-answer: "

// receiver is what is asked for. The login's forced command is run whatever this says.
var receiver = []string{"certfarm", "receive"}

// Call sends a call and brings the answer; see Caller.
func (l Line) Call(ctx context.Context, c Call) (Answer, error) {
	text, err := Seal(c)
	if err != nil {
		return Answer{}, err
	}
	out, err := l.Host.Run(ctx, receiver, text)
	if text, found := find(out); found {
		a, err := OpenAnswer(text)
		if err != nil {
			return a, fmt.Errorf("%w: %w", host.ErrUnreachable, err)
		}
		return a, nil
	}
	_, ran := errors.AsType[*host.ExitError](err)
	switch {
	case ran || err == nil:
		return Answer{}, fmt.Errorf("%w: the login there is not answered by `certfarm receive`, whose line of authorized_keys `certfarm snippet receiver %s` prints; it wrote %.200q",
			host.ErrUnreachable, c.Node, bytes.TrimSpace(out))
	case errors.Is(err, host.ErrUnreachable) || errors.Is(err, host.ErrHostKey):
		return Answer{}, err
	}
	return Answer{}, fmt.Errorf("%w: %w", host.ErrUnreachable, err)
}

// find is the answer in what a login wrote.
func find(out []byte) ([]byte, bool) {
	for l := range bytes.Lines(out) {
		if a, ok := bytes.CutPrefix(l, []byte(mark)); ok {
			return bytes.TrimSpace(a), true
		}
	}
	return nil, false
}

// Frame is an answer as a receiver writes it.
func Frame(a Answer) ([]byte, error) {
	text, err := SealAnswer(a)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(mark), text...), '\n'), nil
}
