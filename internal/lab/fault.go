package lab

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/config"
)

// A Fault is a way in which a node misbehaves, from when it is set. A node has
// one at a time.
type Fault struct {
	Kind Kind
	For  time.Duration // how long; 0: until it is cleared
}

// Kind is the name of a fault.
type Kind string

// The faults; FaultKinds says what each does.
const (
	NoFault      Kind = ""
	SSHDown      Kind = "ssh-down"
	Down         Kind = "down"
	Hangs        Kind = "hangs"
	DiskFull     Kind = "disk-full"
	WrongKey     Kind = "wrong-key"
	BadReload    Kind = "bad-reload"
	DiesOnReload Kind = "dies-on-reload"
	WrongChain   Kind = "wrong-chain"
	DiesForGood  Kind = "dies-for-good"
	Refuses      Kind = "refuses"
)

// FaultKinds lists the faults in the order of a rollout, each with one line for
// help texts.
func FaultKinds() []FaultKind {
	return []FaultKind{
		{SSHDown, "the SSH port refuses; the site is still served"},
		{Down, "SSH, HTTP and HTTPS refuse, as when the machine is switched off; with a time (down:10s) it comes back"},
		{Hangs, "SSH connections stand, but nothing is answered"},
		{DiskFull, "every file written over SFTP fails: no space left on device"},
		{WrongKey, "private keys are changed on their way to the disk"},
		{BadReload, "a reload says that it worked, and the old certificate stays"},
		{DiesOnReload, "a reload says that it worked, and the web server is gone until it is started"},
		{WrongChain, "a new certificate is served with the chain of somebody else, so nobody trusts it"},
		{DiesForGood, "the whole machine is gone for ever after the next reload that works"},
		{Refuses, "a vault answers 403 to every import (the mixed farm's vault has this one)"},
	}
}

// A FaultKind is a fault with its documentation.
type FaultKind struct {
	Kind Kind
	Doc  string
}

// String is how ParseFault reads it.
func (f Fault) String() string {
	if f.For > 0 {
		return fmt.Sprintf("%s:%s", f.Kind, f.For)
	}
	return string(f.Kind)
}

// ParseFault reads NODE=KIND or NODE=KIND:TIME, "web2=down:10s". Its errors are
// for people. Whether there is such a node is for the caller to know.
func ParseFault(s string) (node string, f Fault, err error) {
	node, what, ok := strings.Cut(s, "=")
	if !ok || node == "" {
		return "", Fault{}, fmt.Errorf("fault %q: write NODE=KIND, for example web2=down:10s", s)
	}
	name, span, timed := strings.Cut(what, ":")
	var names []string
	for _, k := range FaultKinds() {
		names = append(names, string(k.Kind))
		if string(k.Kind) == name {
			f.Kind = k.Kind
		}
	}
	if f.Kind == NoFault {
		hint := "there are " + strings.Join(names, ", ")
		if near := config.Meant(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		return "", Fault{}, fmt.Errorf("fault %q: there is no kind %q; %s", s, name, hint)
	}
	if !timed {
		return node, f, nil
	}
	if f.For, err = time.ParseDuration(span); err != nil || f.For <= 0 {
		return "", Fault{}, fmt.Errorf("fault %q: %q is no time; write 10s, 500ms or 2m", s, span)
	}
	if f.Kind == DiesForGood {
		return "", Fault{}, fmt.Errorf("fault %q: %s takes no time: what is gone for good does not come back; use down:%s", s, f.Kind, span)
	}
	return node, f, nil
}

// otherKey changes the private keys in a part of a file, keeping its length: an
// ECDSA key becomes another good key of the same curve, which only a comparison
// with the certificate finds; another key becomes a broken one.
func otherKey(_ string, part []byte) []byte {
	changed := append([]byte(nil), part...)
	for rest := part; ; {
		block, after := pem.Decode(rest)
		if block == nil {
			return changed
		}
		text := rest[:len(rest)-len(after)]
		if begin := strings.Index(string(text), "-----BEGIN "); strings.HasSuffix(block.Type, "PRIVATE KEY") && begin >= 0 {
			at := len(part) - len(rest) + begin
			copy(changed[at:len(part)-len(after)], another(block, text[begin:]))
		}
		rest = after
	}
}

// another returns as many bytes as text has, which is the block.
func another(block *pem.Block, text []byte) []byte {
	if raw, err := anotherEC(block); err == nil {
		if other := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: raw}); len(other) == len(text) {
			return other
		}
	}
	broken := append([]byte(nil), text...)
	for i := range 8 { // in the middle of the key's base64 text
		broken[len(broken)/2+i] = 'A'
	}
	return broken
}

func anotherEC(block *pem.Block) ([]byte, error) {
	if block.Type == "EC PRIVATE KEY" {
		old, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.GenerateKey(old.Curve, rand.Reader)
		if err != nil {
			return nil, err
		}
		return x509.MarshalECPrivateKey(key)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	old, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a %T, not an ECDSA key", parsed)
	}
	key, err := ecdsa.GenerateKey(old.Curve, rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}
