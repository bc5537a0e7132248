package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tap writes down every frame on the lines of the machines until the function that it
// returns is called. That returns the bytes that each TCP connection carried, in the
// order in which they were seen, and whole frames where there is none.
func tap(t *testing.T) (stop func() []byte) {
	t.Helper()
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)) // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	must(t, err)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	quick := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &quick))
	heard := &flows{by: map[string][]byte{}, lines: map[int]bool{}}
	ended := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		frame := make([]byte, 1<<17)
		for {
			n, from, err := unix.Recvfrom(fd, frame, 0)
			if err == nil {
				heard.add(from, frame[:n])
				continue
			}
			select {
			case <-ended:
				return
			default: // nothing came for a while
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(ended)
		reading.Wait()
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil || stats.Drops > 0 {
			t.Errorf("frames were lost: %+v (%v)", stats, err)
		}
		_ = unix.Close(fd) // it was only read
	})
	t.Cleanup(end)
	return func() []byte {
		t.Helper()
		planted := sendPlain(t)
		within(t, 20*time.Second, "what was sent in plain is seen", func() bool { return bytes.Contains(heard.bytes(), planted) })
		end()
		return heard.bytes()
	}
}

// sendPlain sends a word over the bridge as it is, and returns it: a tap that hears
// nothing would find nothing.
func sendPlain(t *testing.T) []byte {
	t.Helper()
	word := []byte("a word in plain on the wire")
	c, err := net.Dial("udp", net.JoinHostPort(worldNet+"11", "9"))
	must(t, err)
	defer c.Close()
	_, err = c.Write(word)
	must(t, err)
	return word
}

// flows are what was heard, by line and connection.
type flows struct {
	mu    sync.Mutex
	order []string
	by    map[string][]byte
	lines map[int]bool // by the number of an interface: it is a machine's line
}

// ours reports that an interface is a machine's line, as world.machine names them. The
// bridge hears the same once more.
func (f *flows) ours(index int) bool {
	is, known := f.lines[index]
	if !known {
		i, err := net.InterfaceByIndex(index)
		is = err == nil && strings.HasPrefix(i.Name, "p-")
		f.lines[index] = is
	}
	return is
}

func (f *flows) add(from unix.Sockaddr, frame []byte) {
	at, ok := from.(*unix.SockaddrLinklayer)
	if !ok || !f.ours(at.Ifindex) {
		return
	}
	key, load := "", frame
	if len(frame) >= 34 && frame[12] == 8 && frame[13] == 0 { // IPv4 in Ethernet
		ip := frame[14:]
		head := int(ip[0]&15) * 4
		if total := int(binary.BigEndian.Uint16(ip[2:])); total >= head && total <= len(ip) {
			ip = ip[:total]
		}
		if ip[9] == 6 && len(ip) >= head+20 {
			tcp := ip[head:]
			key = string(append(append([]byte{byte(at.Ifindex), at.Pkttype}, ip[12:20]...), tcp[:4]...))
			load = tcp[min(int(tcp[12]>>4)*4, len(tcp)):]
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.by[key]; !known {
		f.order = append(f.order, key)
	}
	f.by[key] = append(f.by[key], load...)
}

func (f *flows) bytes() (all []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range f.order {
		all = append(all, f.by[key]...)
	}
	return all
}

// search fails where a key is found, in any of its forms. That it would be found is
// shown with a key that is put at each place.
func search(t *testing.T, keys map[string][][]byte, where map[string][]byte) {
	t.Helper()
	decoy, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	bare, err := decoy.Bytes()
	must(t, err)
	all := map[string]map[string]bool{}
	for owner, texts := range keys {
		all[owner] = map[string]bool{}
		for _, key := range texts {
			all[owner][string(scalarOf(t, key))] = true
		}
	}
	for place, text := range where {
		if len(text) == 0 {
			t.Errorf("%s is empty", place)
		}
		hay := flat(text)
		t.Logf("%s: %d bytes", place, len(text))
		for owner, scalars := range all {
			for scalar := range scalars {
				if form := found(hay, formsOf([]byte(scalar))); form != "" {
					t.Errorf("%s has a key of %s: %s", place, owner, form)
				}
			}
		}
		for form, planted := range decoyForms(t, decoy) {
			part := text[:min(len(text), 4096)]
			with := slices.Concat(part[:len(part)/2], []byte{' '}, planted, []byte{' '}, part[len(part)/2:])
			if found(flat(with), formsOf(bare)) == "" {
				t.Errorf("%s: a key as %s is not found", place, form)
			}
		}
	}
}

// flat is a text, the same without line breaks, as they are and as JSON has them, and
// both of what is written in base64 in it.
func flat(text []byte) []byte {
	all := unbroken(text)
	from := 0
	whole := all
	for i := 0; i <= len(whole); i++ {
		if i < len(whole) && isLetter(whole[i]) {
			continue
		}
		if i-from >= 64 {
			run := string(whole[from : from+(i-from)/4*4])
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				if plain, err := e.DecodeString(run); err == nil {
					all = append(all, unbroken(plain)...)
				}
			}
		}
		from = i + 1
	}
	return all
}

// isLetter reports that base64 may have it.
func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("+/-_", c) >= 0
}

func unbroken(text []byte) []byte {
	one := bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\n"), nil), []byte("\r"), nil)
	return append(append(bytes.Clone(text), one...), bytes.ReplaceAll(one, []byte(`\n`), nil)...)
}

func found(hay []byte, forms map[string][]byte) string {
	for name, form := range forms {
		if bytes.Contains(hay, form) {
			return name
		}
	}
	return ""
}

// formsOf is the private number of a key as it may be written: every encoding of a key
// (SEC 1, PKCS #8) has its bytes, and base64 of them has one of three strings.
func formsOf(scalar []byte) map[string][]byte {
	forms := map[string][]byte{
		"bytes": scalar, "hex": []byte(hex.EncodeToString(scalar)), "HEX": bytes.ToUpper([]byte(hex.EncodeToString(scalar))),
	}
	for shift := range 3 {
		for name, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := []byte(e.EncodeToString(append(make([]byte, shift), scalar...)))
			skip := []int{0, 2, 3}[shift]          // letters that the bytes before have a part in
			whole := (shift + len(scalar)) / 3 * 4 // what comes after has a part in the rest
			forms[fmt.Sprint(name, shift)] = text[skip:whole]
		}
	}
	return forms
}

// scalarOf is the private number of the key in a PEM, or in an agent's identity.
func scalarOf(t *testing.T, text []byte) []byte {
	t.Helper()
	var identity struct{ Key string }
	if json.Unmarshal(text, &identity) == nil {
		text = []byte(identity.Key)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			scalar, err := key.(*ecdsa.PrivateKey).Bytes()
			must(t, err)
			return scalar
		}
	}
	t.Fatalf("no key in %.60s", text)
	return nil
}

// decoyForms is a key in the forms in which it could have got out.
func decoyForms(t *testing.T, key *ecdsa.PrivateKey) map[string][]byte {
	t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	sec1, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	quoted, err := json.Marshal(string(text))
	must(t, err)
	scalar, err := key.Bytes()
	must(t, err)
	return map[string][]byte{
		"PEM": text, "PEM in JSON": quoted, "PKCS #8": pkcs8, "SEC 1": sec1, "base64 of SEC 1": []byte(base64.StdEncoding.EncodeToString(sec1)),
		"base64 of PEM": []byte(base64.StdEncoding.EncodeToString(text)), "hex": []byte(hex.EncodeToString(scalar)),
	}
}
