package sshserver

import (
	"bufio"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/certfarm/certfarm/internal/host/gather"
)

// The packets that a tap looks at (draft-ietf-secsh-filexfer-02 §3, and
// OpenSSH's PROTOCOL §4 for the extensions).
const (
	packetVersion  = 2
	packetStatus   = 101
	packetExtended = 200

	extRename = "posix-rename@openssh.com"
	extFsync  = "fsync@openssh.com"
)

// tap stands between the client and the SFTP library's server, which knows no
// fsync: it names the extensions in the version packet and answers fsync itself.
type tap struct {
	from   io.Reader
	to     *gather.Writer // as OpenSSH's server, it sends what answers there are as one
	rename bool
	fsync  bool

	in []byte // of the packet that the library reads

	mu  sync.Mutex // one packet at a time to the client
	out []byte     // a packet that the library has not yet written whole
}

func newTap(channel io.ReadWriteCloser, fsync, rename bool) *tap {
	t := &tap{from: bufio.NewReader(channel), to: gather.New(channel), fsync: fsync, rename: rename}
	go t.to.Run() // until Close
	return t
}

// Close closes the channel.
func (t *tap) Close() error { return t.to.Close() }

// Read gives the library the client's packets, but for fsync.
func (t *tap) Read(b []byte) (int, error) {
	for len(t.in) == 0 {
		packet, err := readPacket(t.from)
		if err != nil {
			return 0, err
		}
		if id, ok := isFsync(packet); ok && t.fsync {
			if err := t.write(status(id)); err != nil {
				return 0, err
			}
			continue
		}
		t.in = packet
	}
	n := copy(b, t.in)
	t.in = t.in[n:]
	return n, nil
}

// Write sends the library's packets to the client.
func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	t.out = append(t.out, b...)
	var whole []byte
	for len(t.out) >= 4 {
		size := 4 + int(binary.BigEndian.Uint32(t.out))
		if len(t.out) < size {
			break
		}
		packet := t.out[:size:size]
		if packet[4] == packetVersion {
			packet = t.version(packet)
		}
		whole = append(whole, packet...)
		t.out = t.out[size:]
	}
	t.mu.Unlock()
	if len(whole) == 0 {
		return len(b), nil
	}
	return len(b), t.write(whole)
}

func (t *tap) write(b []byte) error {
	_, err := t.to.Write(b)
	return err
}

// version is a version packet that names the extensions we have.
func (t *tap) version(packet []byte) []byte {
	body := slices.Clone(packet[4:9]) // type and version, without the library's own list
	if t.rename {
		body = appendString(appendString(body, extRename), "1")
	}
	if t.fsync {
		body = appendString(appendString(body, extFsync), "1")
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func readPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > 1<<20 {
		return nil, io.ErrUnexpectedEOF
	}
	packet := append(head[:], make([]byte, size)...)
	_, err := io.ReadFull(r, packet[4:])
	return packet, err
}

// isFsync reports whether a packet asks for fsync, and its request id.
func isFsync(packet []byte) (id uint32, ok bool) {
	if len(packet) < 13 || packet[4] != packetExtended {
		return 0, false
	}
	name := packet[13:]
	return binary.BigEndian.Uint32(packet[5:]), strings.HasPrefix(string(name), extFsync)
}

// status is a status packet that says ok.
func status(id uint32) []byte {
	body := binary.BigEndian.AppendUint32([]byte{packetStatus}, id)
	body = binary.BigEndian.AppendUint32(body, 0)
	body = appendString(appendString(body, ""), "")
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
