package provider

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/dns01"
)

const (
	updateTime = 10 * time.Second // of one try at one address
	fudge      = 300              // seconds that clocks may differ (RFC 8945 §10)
)

// updateOptions are the options of RFC2136.
type updateOptions struct {
	Server    string `json:"server"`
	Key       string `json:"key"`
	Algorithm string `json:"algorithm"`
	TTL       int    `json:"ttl"`
	Zone      string `json:"zone,omitempty"`
}

// RFC2136 writes records by dynamic update (RFC 2136), signed with a shared key
// (TSIG, RFC 8945): BIND, Knot, PowerDNS, Microsoft DNS with a key, and others.
func RFC2136() dns01.Provider {
	return dns01.Provider{
		Name:  "rfc2136",
		About: "dynamic update of a name server, signed with a shared key (TSIG)",
		Docs:  "https://www.rfc-editor.org/rfc/rfc2136",
		Settings: []dns01.Setting{
			{Name: "server", About: "the zone's primary name server: host, or host:port", Required: true},
			{Name: "key", About: "name of the TSIG key, as the server knows it", Required: true},
			{Name: "algorithm", About: "the key's algorithm: hmac-sha256, hmac-sha384 or hmac-sha512", Default: "hmac-sha256"},
			{Name: "ttl", About: "seconds that a resolver may keep a record", Default: "60"},
			{Name: "zone", About: "zone to update, where it is another than the record's SOA says"},
			{Name: "key", About: "the TSIG key itself, in base64", Secret: true, Required: true},
		},
		Check: func(raw []byte, secrets []string) ([]byte, error) {
			o, err := readUpdate(raw)
			if err := cmp.Or(err, wantSecrets(secrets, "key")); err != nil {
				return nil, err
			}
			return json.Marshal(o)
		},
		New: func(_ context.Context, s dns01.Setup) (dns01.Writer, error) {
			o, err := readUpdate(s.Options)
			if err != nil {
				return nil, err
			}
			secret := strings.TrimSpace(string(s.Secrets["key"].Reveal()))
			if raw, err := base64.StdEncoding.DecodeString(secret); err != nil || len(raw) == 0 {
				return nil, errors.New("the secret \"key\" is no base64 (use the text after `secret` in the server's key file)")
			}
			return &updater{options: o, secret: farm.NewSecret([]byte(secret)), lookup: s.Lookup, now: time.Now}, nil
		},
	}
}

// tsigAlgorithms are those that are taken, by their name in farm.yaml. MD5 and
// SHA-1 are not (RFC 8945 §6).
var tsigAlgorithms = map[string]string{"hmac-sha256": dns.HmacSHA256, "hmac-sha384": dns.HmacSHA384, "hmac-sha512": dns.HmacSHA512}

func readUpdate(raw []byte) (updateOptions, error) {
	o := updateOptions{Algorithm: "hmac-sha256", TTL: 60}
	if err := readStrict(raw, &o); err != nil {
		return o, err
	}
	o.Algorithm, o.Zone, o.Key = lowerName(o.Algorithm), lowerName(o.Zone), lowerName(o.Key)
	if _, _, err := splitServer(o.Server); err != nil {
		return o, &optionError{"server", err.Error(), "give the primary name server of the zone, such as ns1.example.com:53"}
	}
	if !hostLike(o.Key) {
		return o, &optionError{"key", fmt.Sprintf("%q is no name of a key", o.Key), "the name after `key` in the server's configuration; the key itself is a secret and stands under secrets"}
	}
	if tsigAlgorithms[o.Algorithm] == "" {
		return o, &optionError{"algorithm", fmt.Sprintf("there is no algorithm %q here", o.Algorithm), "there is " + strings.Join(slices.Sorted(maps.Keys(tsigAlgorithms)), ", ")}
	}
	if o.TTL < 0 || o.TTL > 86400 {
		return o, &optionError{"ttl", "it is not between 0 and 86400 seconds", ""}
	}
	if o.Zone != "" && !hostLike(o.Zone) {
		return o, &optionError{"zone", fmt.Sprintf("%q is no name of a zone", o.Zone), ""}
	}
	return o, nil
}

// hostLike takes names of letters, digits, hyphens, underscores and dots.
func hostLike(name string) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}
	_, ok := dns.IsDomainName(name)
	return ok && name != "" && !strings.ContainsFunc(name, odd)
}

// splitServer takes host, host:port, an address, or [address]:port.
func splitServer(server string) (host, port string, err error) {
	if a, err := netip.ParseAddr(server); err == nil {
		return a.String(), "53", nil
	}
	host, port = server, "53"
	if strings.Contains(server, ":") {
		if host, port, err = net.SplitHostPort(server); err != nil {
			return "", "", err
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("%q is no port", port)
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostLike(host) {
		return "", "", fmt.Errorf("%q is no name of a server", host)
	}
	return host, port, nil
}

// updater is a Writer by dynamic update.
type updater struct {
	options updateOptions
	secret  farm.Secret
	lookup  lookup.Client
	now     func() time.Time
}

// Put adds the value to the records at the name (RFC 2136 §2.5.1); see
// dns01.Writer.
func (u *updater) Put(ctx context.Context, r dns01.Record) error {
	return u.update(ctx, r, (*dns.Msg).Insert)
}

// Remove deletes the record with the value (RFC 2136 §2.5.4); see dns01.Writer.
func (u *updater) Remove(ctx context.Context, r dns01.Record) error {
	return u.update(ctx, r, (*dns.Msg).Remove)
}

// update sends one change to the server's addresses in turn, until one takes it.
func (u *updater) update(ctx context.Context, r dns01.Record, change func(*dns.Msg, []dns.RR)) error {
	zone := cmp.Or(u.options.Zone, r.Zone)
	if err := insideZone(r.Name, zone); err != nil {
		return err
	}
	host, port, err := splitServer(u.options.Server)
	if err != nil {
		return err
	}
	addresses, err := u.lookup.Addresses(ctx, host)
	if len(addresses) == 0 {
		return fmt.Errorf("update %s at %s: find the server's address: %w", r.Name, host, cmp.Or(err, errors.New("it has none")))
	}
	var errs []error
	for _, a := range addresses {
		m := new(dns.Msg).SetUpdate(dns.Fqdn(zone))
		header := dns.RR_Header{Name: dns.Fqdn(r.Name), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(u.options.TTL)}
		change(m, []dns.RR{&dns.TXT{Hdr: header, Txt: dnsserve.Strings(r.Value)}})
		address := net.JoinHostPort(a.String(), port)
		if err = u.send(ctx, address, m); err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("update %s at %s: %w", r.Name, address, err))
	}
	return errors.Join(errs...)
}

// send signs the message, and takes no answer that is not signed.
func (u *updater) send(ctx context.Context, address string, m *dns.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, updateTime)
	defer cancel()
	dial := u.lookup.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	key := dns.Fqdn(u.options.Key)
	m.SetTsig(key, tsigAlgorithms[u.options.Algorithm], fudge, u.now().Unix())
	client := &dns.Client{Net: "tcp", Timeout: updateTime, TsigSecret: map[string]string{key: string(u.secret.Reveal())}}
	reply, _, err := client.ExchangeWithConnContext(ctx, m, &dns.Conn{Conn: raw})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return u.judge(m, reply, err)
}

// judge says what an answer means. What it says of an error is only told, so it
// is told even where the answer is not signed, as servers must do that do not know
// the key (RFC 8945 §5.2.1).
func (u *updater) judge(m, reply *dns.Msg, err error) error {
	if reply == nil || reply.Id != m.Id || !reply.Response {
		return cmp.Or(err, errors.New("it did not answer the update"))
	}
	signature := reply.IsTsig()
	switch {
	case signature != nil && signature.Error != dns.RcodeSuccess:
		return u.keyRefused(signature)
	case reply.Rcode != dns.RcodeSuccess:
		return u.refused(m, reply.Rcode)
	case err != nil:
		return fmt.Errorf("its answer is not signed as it should be: %w (is the key the same on both sides, and the clock?)", err)
	case signature == nil:
		return errors.New("it says yes without a signature: somebody else may have answered (does the server know the key?)")
	}
	return nil
}

// keyRefused is what the server says against the signature (RFC 8945 §5.2).
func (u *updater) keyRefused(s *dns.TSIG) error {
	key := u.options.Key
	switch s.Error {
	case dns.RcodeBadKey:
		return fmt.Errorf("it does not know the key %s with %s (BADKEY): is the name right, and the algorithm? Knot says so, too, where its acl does not let the key write this record", key, u.options.Algorithm)
	case dns.RcodeBadSig:
		return fmt.Errorf("it has another key under the name %s (BADSIG): is the secret the server's?", key)
	case dns.RcodeBadTime:
		return fmt.Errorf("its clock and this one's differ too much (BADTIME): %s; set both by NTP", clocks(s, u.now()))
	case dns.RcodeBadTrunc:
		return fmt.Errorf("it wants a longer signature by the key %s (BADTRUNC)", key)
	}
	return fmt.Errorf("it refuses the signature by the key %s: %s", key, rcodeName(int(s.Error)))
}

// clocks compares the server's time, which it gives with BADTIME (RFC 8945
// §5.2.3), with ours.
func clocks(s *dns.TSIG, now time.Time) string {
	seconds, err := strconv.ParseInt(s.OtherData, 16, 64)
	if err != nil {
		return "more than " + (fudge * time.Second).String()
	}
	theirs := time.Unix(seconds, 0).UTC()
	return fmt.Sprintf("it has %s, here it is %s", theirs.Format(time.DateTime), now.UTC().Format(time.DateTime))
}

// refused is what the server says against the update (RFC 2136 §2.2).
func (u *updater) refused(m *dns.Msg, rcode int) error {
	zone, name := m.Question[0].Name, m.Ns[0].Header().Name
	hint := ""
	switch rcode {
	case dns.RcodeRefused:
		hint = fmt.Sprintf(": the key %[1]s may not change TXT at %[2]s (BIND: update-policy { grant %[1]s name %[2]s TXT; }; Knot: an acl with key, action: update)", u.options.Key, name)
	case dns.RcodeNotAuth:
		hint = ": it is not the primary server of " + zone + ", or wants another key; name the primary as server, or the zone as zone"
	case dns.RcodeNotZone:
		hint = ": " + name + " does not lie in its zone " + zone
	case dns.RcodeNotImplemented:
		hint = ": it offers no dynamic updates for " + zone
	case dns.RcodeServerFailure:
		hint = ": its log says why (is the zone's folder writable for it?)"
	}
	return errors.New("it answers " + rcodeName(rcode) + hint)
}

func rcodeName(rcode int) string { return cmp.Or(dns.RcodeToString[rcode], strconv.Itoa(rcode)) }
