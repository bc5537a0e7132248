package iis

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1" //nolint:gosec // as Windows names certificates
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// windows stands for a Windows node with IIS, http.sys and certificate stores. It
// knows the scripts by their text and does what Microsoft's reference says of the
// commands in them; it runs no PowerShell.
type windows struct {
	hosttest.Mem
	mu       sync.Mutex
	sites    []string
	bindings []fakeBinding
	records  []fakeRecord
	certs    map[string]stored // store and thumb
	registry map[string]string
	provider fakeProvider
	german   bool
	meddle   func() // after a switch, as somebody else on the node would
	stdins   []string
	coming   []farm.Bundle // see known; none: PFX files are opened
}

type fakeBinding struct {
	site, info string
	flags      int
}

type fakeRecord struct{ at, hash, app, store, client string }

type stored struct {
	bundle farm.Bundle
	key    bool
}

type fakeProvider struct {
	there, enabled                bool
	location, user, password, key string
	interval                      int
}

// newWindows has two sites; names are SNI bindings of the first, without certificate.
func newWindows(names ...string) *windows {
	w := &windows{sites: []string{"Shop", "Böse"}}
	w.Exec = w.exec
	w.reset(names...)
	return w
}

func (w *windows) reset(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.certs, w.registry, w.bindings, w.provider = map[string]stored{}, map[string]string{}, nil, fakeProvider{}
	w.records = []fakeRecord{
		{"0.0.0.0:8172", strings.Repeat("ab", 20), "{d7d72267-fcf9-4424-9eec-7e1d8dcec9a9}", "MY", "Disabled"},
		{"other.example.net:443", strings.Repeat("cd", 20), appID, "WebHosting", "Enabled"},
	}
	w.bindings = append(w.bindings, fakeBinding{"Böse", "*:443:other.example.net", flagSNI})
	for _, name := range names {
		w.bindings = append(w.bindings, fakeBinding{"Shop", "*:443:" + name, flagSNI})
	}
}

// Readlink is host.Linker's: Windows hosts have no links.
func (w *windows) Readlink(context.Context, string) (string, error) { return "", host.ErrNotLink }

func (w *windows) exec(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stdins = append(w.stdins, string(stdin))
	lines, err := w.script(argv, stdin)
	if err != nil {
		return nil, &host.ExitError{Argv: argv, Status: 1, Output: []byte("#< CLIXML\r\n" + err.Error() + "\r\n")}
	}
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	_, _ = zip.Write([]byte(strings.Join(lines, "\n")))
	_ = zip.Close()
	return []byte("#< CLIXML\r\n" + answerBegins + base64.StdEncoding.EncodeToString(zipped.Bytes()) + answerEnds + "\r\n"), nil
}

type told struct {
	Notes           []writing
	Certs           []held
	Moves           []move
	Deafen          []string
	PFX             []byte
	Password, Store string
	Enable          bool
	Location, User  string
	Key             string
	Interval        int
	Exportable      bool
}

func (w *windows) script(argv []string, stdin []byte) ([]string, error) {
	if !slices.Equal(argv, command()) {
		return nil, fmt.Errorf("not our command: %q", argv)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(stdin)))
	var d struct {
		Script string
		Data   told
	}
	if err == nil {
		err = json.Unmarshal(raw, &d)
	}
	if err != nil {
		return nil, err
	}
	text, ours := strings.CutPrefix(d.Script, commonScript+"\n")
	if !ours {
		return nil, fmt.Errorf("a script that is none of ours: %.80q", d.Script)
	}
	switch text {
	case lookScript:
		return w.look(), nil
	case importScript:
		err = w.put(d.Data)
	case switchScript:
		err = w.turn(d.Data)
	case removeScript:
		err = w.remove(d.Data)
	case centralScript:
		err = w.central(d.Data)
	default:
		err = fmt.Errorf("a script that is none of ours: %.80q", text)
	}
	return []string{"OK"}, err
}

func (w *windows) look() (lines []string) {
	pack := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, b := range w.bindings {
		lines = append(lines, fmt.Sprintf("B\t%s\t%s\t%d", pack(b.site), b.info, b.flags))
	}
	for _, s := range w.sites {
		lines = append(lines, "S\t"+pack(s))
	}
	for at, c := range w.certs {
		store, thumb, _ := strings.Cut(at, " ")
		key := 0
		if c.key {
			key = 1
		}
		lines = append(lines, fmt.Sprintf("C\t%s\t%s\t%s\t%d", store, thumb, c.bundle.Leaf, key))
	}
	for id, text := range w.registry {
		lines = append(lines, "N\t"+id+"\t"+text)
	}
	if p := w.provider; p.there {
		enabled := 0
		if p.enabled {
			enabled = 1
		}
		lines = append(lines, fmt.Sprintf("P\t%d\t%s\t%s\t%d", enabled, pack(p.location), pack(p.user), p.interval))
	}
	for line := range strings.Lines(w.netsh()) {
		lines = append(lines, "T\t"+strings.TrimSuffix(line, "\n"))
	}
	return lines
}

// netsh prints records as `netsh http show sslcert` does.
func (w *windows) netsh() string {
	var b strings.Builder
	words := []string{"SSL Certificate bindings:", "Certificate Hash", "Application ID", "Certificate Store Name", "Negotiate Client Certificate", "Extended Properties:"}
	if w.german {
		words = []string{"SSL-Zertifikatbindungen:", "Zertifikathash", "Anwendungs-ID", "Zertifikatspeichername", "Clientzertifikat aushandeln", "Erweiterte Eigenschaften:"}
	}
	fmt.Fprintf(&b, "\n%s\n-------------------------\n\n", words[0])
	for _, r := range w.records {
		label, hash, store := "Hostname:port", r.hash, r.store
		switch {
		case r.hash == "":
			label, hash, store = "Central Certificate Store", "(null)", "(null)"
		case r.at[0] >= '0' && r.at[0] <= '9' || r.at[0] == '[':
			label = "IP:port"
		}
		for _, line := range [][2]string{{label, r.at}, {words[1], hash}, {words[2], r.app}, {words[3], store}, {"Ctl Identifier", ""}, {words[4], r.client}} {
			fmt.Fprintf(&b, "    %-28s : %s\n", line[0], line[1])
		}
		fmt.Fprintf(&b, "    %s\n\n        PropertyId                   : 0\n        Receive Window               : 1048576\n\n", words[5])
	}
	return b.String()
}

func (w *windows) keep(notes []writing) {
	for _, n := range notes {
		if n.Text == "" {
			delete(w.registry, n.ID)
		} else {
			w.registry[n.ID] = n.Text
		}
	}
}

func (w *windows) put(d told) error {
	w.keep(d.Notes)
	if len(w.coming) == 1 {
		w.add(d.Store, w.coming[0])
		return nil
	}
	b, err := encode.OpenPFX(d.PFX, farm.NewSecret([]byte(d.Password)))
	if err == nil {
		w.add(d.Store, b)
	}
	return err
}

// add puts a certificate with its key into a store.
func (w *windows) add(store string, b farm.Bundle) (thumb string) {
	thumb = thumbOf(b)
	w.certs[store+" "+thumb] = stored{b, true}
	return thumb
}

func thumbOf(b farm.Bundle) string {
	leaf, err := encode.Leaf(b.Chain)
	if err != nil {
		panic(err)
	}
	sum := sha1.Sum(leaf.Raw) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

func (w *windows) at(m move) (i int) {
	return slices.IndexFunc(w.bindings, func(b fakeBinding) bool { return b.site == m.Site && b.info == m.Info })
}

func (w *windows) turn(d told) error {
	for _, m := range d.Moves {
		if err := w.move(m); err != nil {
			return err
		}
	}
	for _, port := range d.Deafen {
		w.drop("*:" + port)
	}
	w.keep(d.Notes)
	if w.meddle != nil {
		w.meddle()
	}
	return nil
}

func (w *windows) move(m move) error {
	if m.Create {
		if w.at(m) >= 0 || !slices.Contains(w.sites, m.Site) {
			return fmt.Errorf("cannot add a duplicate collection entry of type binding: %s", m.Info)
		}
		w.bindings = append(w.bindings, fakeBinding{m.Site, m.Info, m.Flags})
	}
	i := w.at(m)
	if i < 0 {
		return fmt.Errorf("the site has no HTTPS binding %s any more", m.Info)
	}
	place := func() string {
		b, err := binding{Info: w.bindings[i].info, Flags: w.bindings[i].flags}.split()
		if err != nil {
			panic(err)
		}
		return b.at()
	}
	if m.Unbind {
		w.drop(place())
	}
	if m.Reflag {
		w.bindings[i].flags = m.Flags
	}
	if m.Thumb != "" {
		if c, ok := w.certs[m.Store+" "+m.Thumb]; !ok || !c.key {
			return fmt.Errorf("a specified logon session does not exist: %s", m.Thumb)
		}
		w.bind(place(), m.Thumb, m.Store)
	}
	if m.Listen {
		w.records = append(w.records, fakeRecord{"*:" + m.Port, "", appID, "", "Disabled"})
	}
	if m.Drop {
		w.bindings = slices.Delete(w.bindings, i, i+1)
	}
	return nil
}

func (w *windows) drop(at string) {
	w.records = slices.DeleteFunc(w.records, func(r fakeRecord) bool { return r.at == at })
}

func (w *windows) bind(at, thumb, store string) {
	for i, r := range w.records {
		if r.at == at {
			w.records[i].hash, w.records[i].store = thumb, store
			return
		}
	}
	w.records = append(w.records, fakeRecord{at, thumb, appID, store, "Disabled"})
}

func (w *windows) remove(d told) error {
	for _, c := range d.Certs {
		if !strings.Contains(w.netsh(), c.Thumb) {
			delete(w.certs, c.Store+" "+c.Thumb)
		}
	}
	w.keep(d.Notes)
	return nil
}

func (w *windows) central(d told) error {
	if !d.Enable {
		w.provider.enabled = false
		return nil
	}
	w.provider = fakeProvider{true, true, d.Location, d.User, d.Password, d.Key, d.Interval}
	return nil
}
