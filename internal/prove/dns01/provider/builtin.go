package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// builtinOptions are the options of Builtin.
type builtinOptions struct {
	Zone    string          `json:"zone"`
	Servers []builtinServer `json:"servers"`
	Contact string          `json:"contact,omitempty"`
	CAA     []string        `json:"caa,omitempty"`
	TTL     int             `json:"ttl"`
}

type builtinServer struct {
	Host      string   `json:"host"`
	Addresses []string `json:"addresses,omitempty"`
}

// Builtin writes records to the store, from where the controllers answer for them:
// the zone is delegated to them, and no DNS provider is needed. BuiltinZone is
// what they serve.
func Builtin() dns01.Provider {
	return dns01.Provider{
		Name:  "builtin",
		About: "the controllers' own name server, for a zone that is delegated to them",
		Settings: []dns01.Setting{
			{Name: "zone", About: "the delegated zone, such as acme.example.net", Required: true},
			{Name: "servers", About: "its name servers, which are controllers: a list of host and addresses (the addresses where the host lies in the zone)", Required: true},
			{Name: "contact", About: "mail address of who cares for the zone"},
			{Name: "caa", About: `CAA records of the zone, such as 0 issue "letsencrypt.org"`},
			{Name: "ttl", About: "seconds that a resolver may keep a value, or that there is none", Default: fmt.Sprint(int(dnsserve.DefaultTTL / time.Second))},
		},
		Check: func(raw []byte, secrets []string) ([]byte, error) {
			o, _, err := readBuiltin(raw)
			if err := cmp.Or(err, wantSecrets(secrets)); err != nil {
				return nil, err
			}
			return json.Marshal(o)
		},
		New: func(_ context.Context, s dns01.Setup) (dns01.Writer, error) {
			o, _, err := readBuiltin(s.Options)
			if err != nil {
				return nil, err
			}
			if s.Board == nil {
				return nil, errors.New("provider builtin: there is no board to write to")
			}
			return &boardWriter{zone: o.Zone, board: s.Board}, nil
		},
	}
}

// BuiltinZone is the zone that options of provider builtin describe.
func BuiltinZone(options []byte) (dnsserve.Zone, error) {
	_, z, err := readBuiltin(options)
	return z, err
}

func readBuiltin(raw []byte) (builtinOptions, dnsserve.Zone, error) {
	o := builtinOptions{TTL: int(dnsserve.DefaultTTL / time.Second)}
	if err := readStrict(raw, &o); err != nil {
		return o, dnsserve.Zone{}, err
	}
	o.Zone = lowerName(o.Zone)
	z := dnsserve.Zone{Name: o.Zone, Contact: o.Contact, TTL: time.Duration(o.TTL) * time.Second}
	if o.TTL < 1 { // 0 would be the default once more
		return o, z, &optionError{"ttl", "it is not one second or more", ""}
	}
	for i, s := range o.Servers {
		o.Servers[i].Host = lowerName(s.Host)
		server := dnsserve.NameServer{Host: o.Servers[i].Host}
		for j, text := range s.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return o, z, &optionError{fmt.Sprintf("servers[%d].addresses[%d]", i, j), fmt.Sprintf("%q is no IP address", text), ""}
			}
			server.Addresses = append(server.Addresses, a)
		}
		z.Servers = append(z.Servers, server)
	}
	for i, text := range o.CAA {
		c, err := parseCAA(text)
		if err != nil {
			return o, z, &optionError{fmt.Sprintf("caa[%d]", i), err.Error(), `write it as in a zone file: 0 issue "letsencrypt.org"`}
		}
		z.CAA = append(z.CAA, c)
	}
	err := z.Check()
	if wrong, ok := errors.AsType[*dnsserve.ZoneError](err); ok {
		return o, z, zoneOptionError(wrong)
	}
	return o, z, err
}

// zoneOptionError is a mistake in the zone at the option that it comes from.
func zoneOptionError(e *dnsserve.ZoneError) error {
	field, hint := e.Field, ""
	switch field {
	case "name":
		field, hint = "zone", "name the zone that is delegated to the controllers, such as acme.example.net"
	case "servers":
		hint = "list the controllers as its parent zone does: host, and addresses"
	}
	return &optionError{field, e.Problem, hint}
}

// parseCAA reads a CAA record's data as a zone file has it (RFC 8659 §4.1.1).
func parseCAA(text string) (dnsserve.CAA, error) {
	if strings.ContainsAny(text, "\r\n") {
		return dnsserve.CAA{}, errors.New("it has more than one line")
	}
	rr, err := dns.NewRR(". 0 IN CAA " + text)
	c, ok := rr.(*dns.CAA)
	if err != nil || !ok {
		return dnsserve.CAA{}, fmt.Errorf("%q is no CAA record", text)
	}
	return dnsserve.CAA{Flag: c.Flag, Tag: c.Tag, Value: c.Value}, nil
}

func lowerName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

type boardWriter struct {
	zone  string
	board dns01.Board
}

// Put puts the value on the board; see dns01.Writer.
func (w *boardWriter) Put(ctx context.Context, r dns01.Record) error {
	if err := insideZone(r.Name, w.zone); err != nil {
		return err
	}
	if err := w.board.Put(ctx, lowerName(r.Name), r.Value); err != nil {
		return fmt.Errorf("put the TXT value of %s into the store: %w", r.Name, err)
	}
	return nil
}

// Remove takes the value off the board; see dns01.Writer.
func (w *boardWriter) Remove(ctx context.Context, r dns01.Record) error {
	if err := insideZone(r.Name, w.zone); err != nil {
		return err
	}
	if err := w.board.Remove(ctx, lowerName(r.Name), r.Value); err != nil {
		return fmt.Errorf("take the TXT value of %s out of the store: %w", r.Name, err)
	}
	return nil
}

// insideZone refuses a record that does not belong to the zone: nobody would be
// asked for it, or somebody else.
func insideZone(name, zone string) error {
	if !dns.IsSubDomain(dns.Fqdn(zone), dns.Fqdn(lowerName(name))) || slices.Contains(strings.Split(name, "."), "") {
		return fmt.Errorf("%s does not lie in the zone %s: its CNAME or delegation leads elsewhere", name, zone)
	}
	return nil
}
