// Package secrettest looks for secrets in what others may read.
//
// Its invariant: a secret is found in each of the forms in which programs leave one
// about, and Check fails where the search itself does not find what is there.
package secrettest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"net/url"
	"slices"
	"testing"
)

// A Hunt is the secrets that are looked for, by what they are.
type Hunt map[string][]byte

// Forms are the ways in which a secret may lie about: as it is, in base64, in
// hexadecimal, in a URL; and a private key in PEM as its DER, in each of the structures
// that have it, and as the number d of its JWK (RFC 7518 §6), too. Line ends are left out.
func Forms(secret []byte) [][]byte {
	raw := [][]byte{bytes.TrimSpace(secret)}
	if block, _ := pem.Decode(secret); block != nil {
		raw = append(append(raw, block.Bytes), keyForms(block.Bytes)...)
	}
	var all [][]byte
	for _, r := range raw {
		for _, text := range []string{
			string(r), base64.StdEncoding.EncodeToString(r), base64.RawURLEncoding.EncodeToString(r), hex.EncodeToString(r), url.QueryEscape(string(r)),
		} {
			all = append(all, bare([]byte(text)))
		}
	}
	return all
}

// keyForms are the other forms of a private key in DER; none of what is no key.
func keyForms(der []byte) (all [][]byte) {
	var key any
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
	} {
		if k, err := parse(der); err == nil {
			key = k
		}
	}
	keep := func(form []byte, err error) {
		if err == nil && !bytes.Equal(form, der) {
			all = append(all, form)
		}
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		keep(x509.MarshalECPrivateKey(k))
		keep(k.Bytes()) // as long as the curve's order: d
	case *rsa.PrivateKey:
		keep(x509.MarshalPKCS1PrivateKey(k), nil)
		keep(k.D.Bytes(), nil)
	default:
		return nil
	}
	keep(x509.MarshalPKCS8PrivateKey(key))
	return all
}

// bare takes the line ends away at which PEM may be wrapped in any way, those of JSON
// too, and what HTML makes of the plus of base64.
func bare(text []byte) []byte {
	for _, end := range []string{`\r`, `\n`, "\r", "\n"} {
		text = bytes.ReplaceAll(text, []byte(end), nil)
	}
	return bytes.ReplaceAll(text, []byte("&#43;"), []byte("+"))
}

// Found names the secrets that lie in a text, in order.
func (h Hunt) Found(text []byte) (all []string) {
	text = bare(text)
	for _, what := range slices.Sorted(maps.Keys(h)) {
		if slices.ContainsFunc(Forms(h[what]), func(form []byte) bool { return bytes.Contains(text, form) }) {
			all = append(all, what)
		}
	}
	return all
}

// Check looks through texts, by where they were read, and fails for each secret that
// lies in one. Then it puts every secret into the midst of each of them, in one form
// after the other and broken at a line end, and fails where that is not found.
func (h Hunt) Check(t *testing.T, heard map[string][]byte) {
	t.Helper()
	for what, secret := range h {
		if len(bytes.TrimSpace(secret)) == 0 {
			t.Errorf("%s is empty: nothing is looked for", what)
		}
	}
	round := 0
	for where, text := range heard {
		if all := h.Found(text); len(all) > 0 {
			t.Errorf("%s holds %v", where, all)
		}
		planted := slices.Clone(text[:len(text)/2])
		for _, what := range slices.Sorted(maps.Keys(h)) {
			forms := Forms(h[what])
			form := forms[round%len(forms)]
			planted = slices.Concat(planted, []byte(" "), form[:len(form)/2], []byte("\n"), form[len(form)/2:], []byte(" "))
		}
		planted = append(planted, text[len(text)/2:]...)
		if all := h.Found(planted); len(all) != len(h) {
			t.Errorf("of what was put into %s only %v is found", where, all)
		}
		round++
	}
}
