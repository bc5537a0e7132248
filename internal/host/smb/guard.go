package smb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
)

// errClear says that the server would take what we send without encryption.
var errClear = errors.New("the server does not encrypt this share, and keys do not travel in the clear " +
	"(on the server: Set-SmbShare -Name SHARE -EncryptData $true; with Samba: server smb encrypt = required)")

// The beginnings of an SMB 2 message and the commands that may go out in the
// clear, signed, because the keys are agreed on by them (MS-SMB2 sections
// 2.2.1, 2.2.41 and 3.2.4.1.8).
const (
	headerLength  = 16 // up to and with the command
	commandOffset = 12
	lengthPrefix  = 4 // of the transport, MS-SMB2 section 2.1
	lastInClear   = 4 // negotiate, session setup, logoff, tree connect, tree disconnect
)

// guard is a connection that lets nothing out unencrypted but what opens and
// closes a session. The library encrypts when the server asks for it, as a
// property of the session or the share, and has no switch to demand it: so it
// is demanded where the bytes pass.
type guard struct {
	net.Conn
	prefix []byte // of the message that comes next, held back until it was looked at
}

// Write passes one message on. The library writes its length first and then all
// of it; anything else is an error.
func (g *guard) Write(p []byte) (int, error) {
	if g.prefix == nil {
		if len(p) != lengthPrefix {
			return 0, fmt.Errorf("writing to the file server: %d bytes where a length was due", len(p))
		}
		g.prefix = slices.Clone(p)
		return len(p), nil
	}
	if uint64(binary.BigEndian.Uint32(g.prefix)) != uint64(len(p)) || len(p) < headerLength {
		return 0, errors.New("writing to the file server: a message of another length than was said")
	}
	if !mayPass(p) {
		return 0, errClear
	}
	whole := slices.Concat(g.prefix, p)
	g.prefix = nil
	if _, err := g.Conn.Write(whole); err != nil {
		return 0, err
	}
	return len(p), nil
}

func mayPass(message []byte) bool {
	switch string(message[:4]) {
	case "\xfdSMB":
		return true
	case "\xfeSMB":
		return binary.LittleEndian.Uint16(message[commandOffset:]) <= lastInClear
	}
	return false
}
