package probe

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strings"
)

// A dialogue asks a server to go over to TLS. It returns nil when the next byte
// on the line is TLS's.
type dialogue func(r *bufio.Reader, w io.Writer) error

// StartTLS lists the protocols in which an endpoint may be asked to go over to
// TLS, as farm.yaml names them.
func StartTLS() []string {
	return []string{"smtp", "imap", "pop3", "ldap", "postgres", "mysql"}
}

func dialogueFor(protocol string) (dialogue, error) {
	switch protocol {
	case "":
		return nil, nil
	case "smtp":
		return smtp, nil
	case "imap":
		return imap, nil
	case "pop3":
		return pop3, nil
	case "ldap":
		return ldap, nil
	case "postgres":
		return postgres, nil
	case "mysql":
		return mysql, nil
	}
	return nil, fmt.Errorf("STARTTLS is not known for %q; there are %s", protocol, strings.Join(StartTLS(), ", "))
}

// mostRead is more than any server says before TLS.
const mostRead = 64 << 10

var errNoTLS = errors.New("the server does not offer TLS")

// converse holds a dialogue. Bytes that come after the server's assent and
// before the handshake were put there by someone else (CVE-2011-0411): refused.
func converse(d dialogue, line io.ReadWriter) error {
	r := bufio.NewReader(io.LimitReader(line, mostRead))
	if err := d(r, line); err != nil {
		return err
	}
	if n := r.Buffered(); n > 0 {
		return fmt.Errorf("the server sent %d bytes more than its assent", n)
	}
	return nil
}

// smtp is RFC 3207.
func smtp(r *bufio.Reader, w io.Writer) error {
	text := textproto.NewReader(r)
	if _, _, err := text.ReadResponse(220); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if _, err := io.WriteString(w, "EHLO localhost\r\n"); err != nil {
		return err
	}
	_, offers, err := text.ReadResponse(250)
	if err != nil {
		return fmt.Errorf("EHLO: %w", err)
	}
	if !hasLine(offers, "STARTTLS") {
		return errNoTLS
	}
	if _, err := io.WriteString(w, "STARTTLS\r\n"); err != nil {
		return err
	}
	_, _, err = text.ReadResponse(220)
	return err
}

func hasLine(text, want string) bool {
	for line := range strings.Lines(text) {
		if strings.EqualFold(strings.TrimSpace(line), want) {
			return true
		}
	}
	return false
}

// imap is RFC 9051 §6.2.1.
func imap(r *bufio.Reader, w io.Writer) error {
	text := textproto.NewReader(r)
	if err := begins(text, "* OK"); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "a1 STARTTLS\r\n"); err != nil {
		return err
	}
	for {
		line, err := text.ReadLine()
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(line, "* "): // news that nobody asked for
		case hasPrefixFold(line, "a1 OK"):
			return nil
		default:
			return fmt.Errorf("%w: %q", errNoTLS, line)
		}
	}
}

// pop3 is RFC 2595 §4.
func pop3(r *bufio.Reader, w io.Writer) error {
	text := textproto.NewReader(r)
	if err := begins(text, "+OK"); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "STLS\r\n"); err != nil {
		return err
	}
	return begins(text, "+OK")
}

func begins(text *textproto.Reader, want string) error {
	line, err := text.ReadLine()
	if err == nil && !hasPrefixFold(line, want) {
		err = fmt.Errorf("%w: %q", errNoTLS, line)
	}
	return err
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// postgres is the SSLRequest of PostgreSQL's protocol (manual §54.2.11).
func postgres(r *bufio.Reader, w io.Writer) error {
	if _, err := w.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return err
	}
	answer, err := r.ReadByte()
	if err == nil && answer != 'S' {
		err = errNoTLS
	}
	return err
}

// mysql reads the server's handshake packet, version 10, and answers with an
// SSLRequest (MySQL's manual, Protocol::SSLRequest).
func mysql(r *bufio.Reader, w io.Writer) error {
	head := make([]byte, 4) // length in three bytes, little endian, and a sequence number
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	packet := make([]byte, int(head[0])|int(head[1])<<8)
	if _, err := io.ReadFull(r, packet); err != nil {
		return err
	}
	if head[2] != 0 || len(packet) == 0 || packet[0] != 10 {
		return errors.New("no MySQL greeting of protocol version 10")
	}
	const (
		protocol41, ssl, secure = 0x200, 0x800, 0x8000
		utf8mb4                 = 45
		flagsAfter              = 4 + 8 + 1 // the thread's id, 8 bytes of the nonce, a filler
	)
	end := bytes.IndexByte(packet, 0) // of the server's version
	if end < 0 || len(packet) < end+1+flagsAfter+2 {
		return errors.New("the MySQL greeting is cut short")
	}
	if binary.LittleEndian.Uint16(packet[end+1+flagsAfter:])&ssl == 0 {
		return errNoTLS
	}
	request := make([]byte, 4+32)
	request[0], request[3] = 32, head[3]+1
	binary.LittleEndian.PutUint32(request[4:], protocol41|ssl|secure)
	binary.LittleEndian.PutUint32(request[8:], 1<<24)
	request[12] = utf8mb4
	_, err := w.Write(request)
	return err
}

// ldap is the StartTLS operation of RFC 4511 §4.14.
func ldap(r *bufio.Reader, w io.Writer) error {
	const oid = "1.3.6.1.4.1.1466.20037"
	request := append([]byte{0x30, 0x1d, 0x02, 0x01, 0x01, 0x77, 0x18, 0x80, byte(len(oid))}, oid...)
	if _, err := w.Write(request); err != nil {
		return err
	}
	message, err := berElement(r, 0x30)
	if err != nil {
		return err
	}
	in := bufio.NewReader(bytes.NewReader(message))
	if _, err := berElement(in, 0x02); err != nil { // the message's number
		return err
	}
	response, err := berElement(in, 0x78)
	if err != nil {
		return err
	}
	code, err := berElement(bufio.NewReader(bytes.NewReader(response)), 0x0a)
	if err != nil {
		return err
	}
	if !bytes.Equal(code, []byte{0}) {
		return fmt.Errorf("%w: LDAP result %x", errNoTLS, code)
	}
	return nil
}

// berElement reads one element of the wanted tag. Lengths may be longer than
// they need to be, as Active Directory writes them: encoding/asn1 refuses those.
func berElement(r *bufio.Reader, tag byte) ([]byte, error) {
	got, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	if got != tag {
		return nil, fmt.Errorf("LDAP element %#x where %#x was due", got, tag)
	}
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	length := int(first)
	if first >= 0x80 {
		if first == 0x80 || first > 0x84 {
			return nil, errors.New("LDAP element of unknown length")
		}
		length = 0
		for range first - 0x80 {
			b, err := r.ReadByte()
			if err != nil {
				return nil, err
			}
			length = length<<8 | int(b)
		}
	}
	if length > mostRead {
		return nil, fmt.Errorf("LDAP element of %d bytes", length)
	}
	body := make([]byte, length)
	_, err = io.ReadFull(r, body)
	return body, err
}
