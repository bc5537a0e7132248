package iis

import (
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
)

// appID is how http.sys knows IIS, on every Windows.
const appID = "{4dc3e181-e14b-4a21-b022-59fc669b0914}"

// The flags of a binding that decide where its certificate comes from
// (learn.microsoft.com, iis, binding: sslFlags).
const (
	flagSNI, flagCentral = 1, 2
)

// node is what a node was seen to have.
type node struct {
	sites    []string
	bindings []binding
	records  []record
	certs    []cert
	memos    map[string]memo
	provider provider
}

// binding is one HTTPS binding of IIS.
type binding struct {
	Site, Info, IP, Port, Host string
	Flags                      int
}

// record is one entry of http.sys: where it listens, and with which certificate.
// IIS keeps no thumbprint of its own (applicationHost.config has none).
type record struct {
	at, hash, app, store string
	rest                 string // all other lines, to be compared
}

// cert is a certificate in a store of the machine.
type cert struct {
	store, thumb, leaf string
	key                bool
}

// provider is the node's Centralized Certificate Store, as its registry has it.
type provider struct {
	enabled        bool
	location, user string
	interval       int // seconds; 0: defaultInterval
}

// defaultInterval is how often IIS looks into the store, in seconds, if nobody said.
const defaultInterval = 300

// look reads a node.
func (s shell) look(ctx context.Context) (node, error) {
	lines, err := s.run(ctx, lookScript, struct{}{})
	if err != nil {
		return node{}, fmt.Errorf("looking at IIS: %w", err)
	}
	n := node{memos: map[string]memo{}}
	var netsh []string
	for _, line := range lines {
		line = strings.TrimRight(line, "\r")
		kind, rest, _ := strings.Cut(line, "\t")
		if kind == "T" {
			netsh = append(netsh, rest)
		} else if err := n.take(kind, strings.Split(rest, "\t")); err != nil {
			return node{}, fmt.Errorf("looking at IIS: the answer has a line %.80q: %w", line, err)
		}
	}
	n.records = records(netsh)
	return n, nil
}

// take reads a line of look's answer.
func (n *node) take(kind string, words []string) (err error) {
	want, known := map[string]int{"B": 3, "S": 1, "C": 4, "N": 2, "P": 4}[kind]
	if !known || len(words) != want {
		return fmt.Errorf("of %d words", len(words))
	}
	switch kind {
	case "B":
		b := binding{Site: unpacked(words[0]), Info: words[1]}
		if b.Flags, err = strconv.Atoi(words[2]); err == nil {
			b, err = b.split()
		}
		n.bindings = append(n.bindings, b)
	case "S":
		n.sites = append(n.sites, unpacked(words[0]))
	case "C":
		n.certs = append(n.certs, cert{words[0], words[1], words[2], words[3] == "1"})
	case "N":
		n.memos[words[0]], err = readMemo(words[1])
	case "P":
		interval, _ := strconv.Atoi(words[3]) // none is the default
		n.provider = provider{words[0] == "1", unpacked(words[1]), unpacked(words[2]), interval}
	}
	return err
}

func unpacked(word string) string {
	text, _ := base64.StdEncoding.DecodeString(word) // it was written by our own script
	return string(text)
}

// split reads a bindingInformation: address, port and host name. An IPv6 address
// has colons of its own, in brackets.
func (b binding) split() (binding, error) {
	before, name, ok := cutLast(b.Info)
	ip, port, ok2 := cutLast(before)
	if !ok || !ok2 || port == "" {
		return b, fmt.Errorf("%q is no address:port:host", b.Info)
	}
	b.IP, b.Port, b.Host = ip, port, strings.ToLower(name)
	return b, nil
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// at is where http.sys has the binding's certificate.
func (b binding) at() string {
	switch {
	case b.Flags&flagCentral != 0:
		return ""
	case b.Flags&flagSNI != 0:
		return b.Host + ":" + b.Port
	case b.IP == "*" || b.IP == "":
		return "0.0.0.0:" + b.Port
	}
	return strings.ToLower(b.IP) + ":" + b.Port
}

// String is the binding as people know it.
func (b binding) String() string { return fmt.Sprintf("%s of site %q", b.Info, b.Site) }

var (
	guid  = regexp.MustCompile(`^\{[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\}$`)
	thumb = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// records reads what `netsh http show sslcert` prints. Its words are translated and
// its blocks have blank lines in them on newer Windows, so only its shape counts:
// each entry begins with where it listens, the hash and the application's GUID, and
// the store's name follows.
func records(lines []string) []record {
	var values, texts []string
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if _, value, ok := strings.Cut(line+" ", ": "); ok {
			values, texts = append(values, strings.TrimSpace(value)), append(texts, line)
		}
	}
	var all []record
	begins := func(i int) bool { return i+2 < len(values) && guid.MatchString(values[i+2]) }
	for i := 0; i < len(values); i++ {
		switch {
		case begins(i):
			r := record{at: strings.ToLower(values[i]), hash: strings.ToLower(values[i+1]), app: strings.ToLower(values[i+2])}
			if !thumb.MatchString(r.hash) {
				r.hash = "" // (null): the Centralized Certificate Store
			}
			if i += 2; i+1 < len(values) && !begins(i+1) {
				i++
				r.store = values[i]
			}
			all = append(all, r)
		case len(all) > 0:
			all[len(all)-1].rest += texts[i] + "\n"
		}
	}
	return all
}

// record is what http.sys has at a place.
func (n node) record(at string) (record, bool) {
	for _, r := range n.records {
		if r.at == at {
			return r, true
		}
	}
	return record{}, false
}

// listens reports that http.sys asks the Centralized Certificate Store on a port.
func (n node) listens(port string) bool {
	for _, r := range n.records {
		if r.central(port) {
			return true
		}
	}
	return false
}

// central reports that the record is a port's one of the Centralized Certificate
// Store. It has no certificate, and Windows has shown its place in several forms.
func (r record) central(port string) bool {
	return r.hash == "" && (r.at == port || r.at == "*:"+port || r.at == ":"+port)
}

// find is a certificate with its key, in the store if it is there, else in any.
func (n node) find(store, thumb string) (cert, bool) {
	var other cert
	for _, c := range n.certs {
		if c.thumb != thumb || !c.key {
			continue
		}
		if strings.EqualFold(c.store, store) {
			return c, true
		}
		other = c
	}
	return other, other.thumb != ""
}

// has reports that a store has a certificate with its key.
func (n node) has(store, thumb string) bool {
	c, ok := n.find(store, thumb)
	return ok && strings.EqualFold(c.store, store)
}

// served reports that http.sys has a certificate, whoever gave it.
func (n node) served(thumb string) bool {
	return slices.ContainsFunc(n.records, func(r record) bool { return r.hash == thumb })
}

// needed reports that a target other than id holds a certificate.
func (n node) needed(thumb, id string) bool {
	for other, m := range n.memos {
		if _, held := m.held(thumb); held && other != id {
			return true
		}
	}
	return false
}

// brought reports that a certificate is there because one of our targets needed it.
func (n node) brought(thumb string) bool {
	for _, m := range n.memos {
		if h, held := m.held(thumb); held && h.Own {
			return true
		}
	}
	return false
}

// installed is what the bindings serve. Where they serve different certificates, or
// some none, or one without its key, it is a mismatch.
func (n node) installed(slots []slot) (in deploy.Installed) {
	empty := 0
	for _, s := range slots {
		if s.Prev == "" {
			empty++
			continue
		}
		n.add(&in, s.Store, s.Prev)
	}
	in.Mismatch = in.Mismatch || len(in.Leaves) > 1 || len(in.Leaves) > 0 && empty > 0
	return in
}

// add adds a certificate to what is installed.
func (n node) add(in *deploy.Installed, store, thumb string) {
	c, ok := n.find(store, thumb)
	if !ok {
		in.Mismatch = true
	} else if !slices.Contains(in.Leaves, c.leaf) {
		in.Leaves = append(in.Leaves, c.leaf)
	}
}
