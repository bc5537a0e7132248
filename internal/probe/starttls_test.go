package probe

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

// says plays a server's side of a dialogue: lines that begin with > are said,
// the others must be heard. \n is written and read as CR LF.
func says(script ...string) func(*bufio.Reader, net.Conn) error {
	return func(r *bufio.Reader, c net.Conn) error {
		for _, line := range script {
			if text, ok := strings.CutPrefix(line, ">"); ok {
				fmt.Fprint(c, text+"\r\n")
				continue
			}
			got, err := r.ReadString('\n')
			if err != nil || strings.TrimRight(got, "\r\n") != line {
				return fmt.Errorf("heard %q, %v; want %q", got, err, line)
			}
		}
		return nil
	}
}

// binaryServer hears exactly want and answers.
func binaryServer(greeting, want, answer string) func(*bufio.Reader, net.Conn) error {
	return func(r *bufio.Reader, c net.Conn) error {
		_, _ = io.WriteString(c, greeting)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			return fmt.Errorf("heard %x, %v; want %x", got, err, want)
		}
		_, err := io.WriteString(c, answer)
		return err
	}
}

const (
	ldapRequest = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
	ldapYes     = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"
	ldapYesLong = "\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00"
	ldapNo      = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00"
)

func mysqlGreeting(flags uint16) string {
	body := "\x0a8.4.0\x00" + "\x01\x00\x00\x00" + "12345678" + "\x00"
	body += string(binary.LittleEndian.AppendUint16(nil, flags)) + "\x2d\x00\x00\x00\x00\x15"
	return string([]byte{byte(len(body)), 0, 0, 0}) + body
}

var mysqlRequest = "\x20\x00\x00\x01\x00\x8a\x00\x00\x00\x00\x00\x01\x2d" + strings.Repeat("\x00", 23)

func TestStartTLS(t *testing.T) {
	ca := newAuthority(t, "A")
	cert := ca.leaf(t, ecKey(t))
	for name, c := range map[string]struct {
		protocol string
		server   func(*bufio.Reader, net.Conn) error
		err      string // "" goes on to a handshake
	}{
		"smtp":                {"smtp", says(">220-mx.test", ">220 ESMTP", "EHLO localhost", ">250-mx.test", ">250-SIZE 1", ">250 STARTTLS", "STARTTLS", ">220 go"), ""},
		"smtp offers nothing": {"smtp", says(">220 mx.test", "EHLO localhost", ">250 mx.test"), "does not offer TLS"},
		"smtp is busy":        {"smtp", says(">421 later"), `421 "later"`},
		"smtp says no":        {"smtp", says(">220 mx.test", "EHLO localhost", ">250 STARTTLS", "STARTTLS", ">454 no"), `454 "no"`},
		"smtp injected":       {"smtp", says(">220 mx.test", "EHLO localhost", ">250 STARTTLS", "STARTTLS", ">220 go\r\n250 and more"), "more than its assent"},
		"imap":                {"imap", says(">* OK hello", "a1 STARTTLS", ">* CAPABILITY IMAP4rev1", ">a1 OK begin"), ""},
		"imap says no":        {"imap", says(">* OK hello", "a1 STARTTLS", ">a1 BAD what"), "does not offer TLS"},
		"pop3":                {"pop3", says(">+OK hello", "STLS", ">+OK begin"), ""},
		"pop3 says no":        {"pop3", says(">+OK hello", "STLS", ">-ERR what"), "does not offer TLS"},
		"postgres":            {"postgres", binaryServer("", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "S"), ""},
		"postgres says no":    {"postgres", binaryServer("", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "N"), "does not offer TLS"},
		"ldap":                {"ldap", binaryServer("", ldapRequest, ldapYes), ""},
		"ldap in long form":   {"ldap", binaryServer("", ldapRequest, ldapYesLong), ""},
		"ldap says no":        {"ldap", binaryServer("", ldapRequest, ldapNo), "LDAP result 02"},
		"mysql":               {"mysql", binaryServer(mysqlGreeting(0xaa00|0x800), mysqlRequest, ""), ""},
		"mysql without TLS":   {"mysql", binaryServer(mysqlGreeting(0), "", ""), "does not offer TLS"},
		"mysql is full":       {"mysql", binaryServer("\x03\x00\x00\x00\xff\x10\x04", "", ""), "no MySQL greeting"},
	} {
		t.Run(name, func(t *testing.T) {
			address := listen(t, func(_ int, conn net.Conn) {
				if err := c.server(bufio.NewReader(iotest.OneByteReader(conn)), conn); err != nil {
					t.Error(err)
					return
				}
				shake(conn, &tls.Config{Certificates: []tls.Certificate{cert}})
			})
			q := ask(ca, address)
			q.Endpoint.StartTLS = c.protocol
			s := see(t, q)
			if s.Trusted != (c.err == "") || !strings.Contains(s.Error, c.err) {
				t.Errorf("trusted %v, error %q; want %q", s.Trusted, s.Error, c.err)
			}
		})
	}
}

func TestStartTLSNamesEachProtocol(t *testing.T) {
	for _, p := range StartTLS() {
		if d, err := dialogueFor(p); d == nil || err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// hearProxy reads a header byte by byte and says whom it names, as a server
// behind HAProxy would (proxy-protocol.txt §2).
func hearProxy(c net.Conn) (from, to string, err error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(c, head[:12]); err != nil {
		return "", "", err
	}
	if string(head[:12]) != "\r\n\r\n\x00\r\nQUIT\n" {
		text := string(head[:12])
		for !strings.HasSuffix(text, "\r\n") {
			if _, err := io.ReadFull(c, head[:1]); err != nil {
				return "", "", err
			}
			text += string(head[:1])
		}
		f := strings.Fields(text)
		if len(f) != 6 || f[0] != "PROXY" || f[1] != "TCP4" {
			return "", "", fmt.Errorf("header %q", text)
		}
		return net.JoinHostPort(f[2], f[4]), net.JoinHostPort(f[3], f[5]), nil
	}
	if _, err := io.ReadFull(c, head[12:]); err != nil {
		return "", "", err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[14:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return "", "", err
	}
	if head[12] != 0x21 || head[13] != 0x11 || len(body) != 12 {
		return "", "", fmt.Errorf("header %x with %d bytes", head, len(body))
	}
	at := func(ip, port []byte) string {
		a, _ := netip.AddrFromSlice(ip)
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port)).String()
	}
	return at(body[:4], body[8:]), at(body[4:8], body[10:]), nil
}

func TestProxyHeaderComesFirst(t *testing.T) {
	ca := newAuthority(t, "A")
	cert := ca.leaf(t, ecKey(t))
	for _, version := range []int{1, 2} {
		for _, start := range []string{"", "pop3"} {
			address := listen(t, func(_ int, c net.Conn) {
				from, to, err := hearProxy(c)
				if err != nil || from != c.RemoteAddr().String() || to != c.LocalAddr().String() {
					t.Errorf("version %d: from %s to %s, %v; want %s to %s", version, from, to, err, c.RemoteAddr(), c.LocalAddr())
					return
				}
				if start != "" {
					if err := says(">+OK", "STLS", ">+OK")(bufio.NewReader(iotest.OneByteReader(c)), c); err != nil {
						t.Error(err)
					}
				}
				shake(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			})
			q := ask(ca, address)
			q.Endpoint.Proxy, q.Endpoint.StartTLS = version, start
			if s := see(t, q); !s.Trusted {
				t.Errorf("version %d: %+v", version, s)
			}
		}
	}
}

func TestProxyHeader(t *testing.T) {
	six := func(a string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a)) }
	magic := "\r\n\r\n\x00\r\nQUIT\n"
	one := strings.Repeat("\x00", 15) + "\x01"
	for _, c := range []struct {
		version  int
		from, to net.Addr
		want     string
	}{
		{1, six("[::1]:500"), six("[::1]:443"), "PROXY TCP6 ::1 ::1 500 443\r\n"},
		{2, six("[::1]:258"), six("[::1]:443"), magic + "\x21\x21\x00\x24" + one + one + "\x01\x02\x01\xbb"},
		{1, six("[::ffff:10.0.0.1]:5"), six("10.0.0.2:443"), "PROXY TCP4 10.0.0.1 10.0.0.2 5 443\r\n"},
		// What an SSH channel knows of its ends: nothing.
		{1, &net.TCPAddr{IP: net.IPv4zero}, &net.TCPAddr{IP: net.IPv4zero}, "PROXY UNKNOWN\r\n"},
		{2, &net.UnixAddr{}, &net.UnixAddr{}, magic + "\x20\x00\x00\x00"},
	} {
		if got := proxyHeader(c.version, c.from, c.to); string(got) != c.want {
			t.Errorf("version %d from %v to %v: %q, want %q", c.version, c.from, c.to, got, c.want)
		}
	}
}

// FuzzStartTLS gives each dialogue whatever a server may say. It must end, and
// may not assent to TLS with bytes left over.
func FuzzStartTLS(f *testing.F) {
	f.Add("220 a\r\n250 STARTTLS\r\n220 b\r\n")
	f.Add("* OK\r\n* x\r\na1 OK\r\n")
	f.Add("+OK\r\n+OK\r\n")
	f.Add("S")
	f.Add(ldapYes)
	f.Add(ldapYesLong)
	f.Add(mysqlGreeting(0x800))
	f.Add("\x30\x84\xff\xff\xff\xff")
	f.Fuzz(func(t *testing.T, server string) {
		for _, p := range StartTLS() {
			d, err := dialogueFor(p)
			if err != nil {
				t.Fatal(err)
			}
			var sent bytes.Buffer
			in := strings.NewReader(server)
			err = converse(d, struct {
				io.Reader
				io.Writer
			}{in, &sent})
			if err == nil && in.Len() > 0 && len(server) < 4096 {
				t.Errorf("%s: assented with %d bytes unread", p, in.Len())
			}
		}
	})
}
