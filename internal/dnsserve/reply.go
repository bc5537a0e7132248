package dnsserve

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	headerSize = 12   // bytes of a DNS header (RFC 1035 §4.1.1)
	maxUDP     = 1232 // bytes of an answer that no path fragments (DNS flag day 2020)
	maxTimes   = 8    // an answer over UDP is at most so many times its query
)

// lookupTime is how long a query may wait for the source. Resolvers ask again
// after about as long.
const lookupTime = 2 * time.Second

// A responder turns queries to answers.
type responder struct {
	source Source
	zones  zones
	limit  *limiter
	count  counters
}

func newResponder(c Config) *responder {
	rate := c.Rate
	if rate <= 0 {
		rate = DefaultRate
	}
	return &responder{source: c.Source, zones: zones{source: c.Source}, limit: newLimiter(rate)}
}

// A query is a packet, and how it came.
type query struct {
	packet []byte
	from   netip.Addr
	udp    bool
	at     time.Time
}

// guarded is reply; a mistake in it, or in the library that reads packets, costs
// the query and not the controller.
func (r *responder) guarded(ctx context.Context, q query) (answer []byte) {
	defer func() {
		if recover() != nil {
			r.count.failed.Add(1)
			answer = nil
		}
	}()
	return r.reply(ctx, q)
}

// reply answers one packet; nil: nothing is sent.
func (r *responder) reply(ctx context.Context, q query) []byte {
	if len(q.packet) < headerSize || q.packet[2]&0x80 != 0 {
		return nil // no header, or an answer itself: two servers must not talk for ever
	}
	r.count.queries.Add(1)
	verdict := pass
	if q.udp {
		verdict = r.limit.take(q.from, q.at)
	}
	if verdict != pass {
		r.count.limited.Add(1)
	}
	if verdict == ignore {
		return nil
	}
	if opcode := int(q.packet[2]>>3) & 0xF; opcode != dns.OpcodeQuery {
		return r.noQuery(q.packet, opcode)
	}
	asked := new(dns.Msg)
	if err := asked.Unpack(q.packet); err != nil || len(asked.Question) != 1 { // one question only: RFC 9619
		r.count.malformed.Add(1)
		return bare(q.packet, dns.RcodeFormatError)
	}
	m := r.answer(ctx, asked, q.at, verdict == toTCP)
	return r.pack(m, asked, q)
}

// noQuery refuses what changes or announces zones, and tells whoever wants
// something else that it is not there.
func (r *responder) noQuery(packet []byte, opcode int) []byte {
	r.count.refused.Add(1)
	if opcode == dns.OpcodeNotify || opcode == dns.OpcodeUpdate {
		return bare(packet, dns.RcodeRefused)
	}
	return bare(packet, dns.RcodeNotImplemented)
}

// bare is an answer without any section, for a packet that may not be readable.
func bare(packet []byte, rcode int) []byte {
	out := make([]byte, headerSize)
	copy(out, packet[:2])               // ID
	out[2] = 0x80 | packet[2]&0b1111001 // QR; opcode and RD as they were
	out[3] = packet[3]&0b10000 | byte(rcode)
	return out
}

// answer says what the question gets.
func (r *responder) answer(ctx context.Context, asked *dns.Msg, now time.Time, limited bool) *dns.Msg {
	m := &dns.Msg{Compress: true}
	m.Id, m.Response, m.RecursionDesired, m.CheckingDisabled = asked.Id, true, asked.RecursionDesired, asked.CheckingDisabled
	m.Question = asked.Question // as it was written: resolvers check the case (0x20)
	opt, ok := edns(asked)
	if opt != nil {
		m.SetEdns0(maxUDP, opt.Do())
	}
	q := asked.Question[0]
	switch {
	case !ok:
		r.count.malformed.Add(1)
		m.Rcode = dns.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		r.count.malformed.Add(1)
		m.Rcode = dns.RcodeBadVers // RFC 6891 §6.1.3
	case limited:
		m.Truncated = true
	case q.Qclass != dns.ClassINET || notData(q.Qtype):
		r.count.refused.Add(1)
		m.Rcode = dns.RcodeRefused
	default:
		r.fill(ctx, m, q, now)
	}
	return m
}

// edns is the OPT record; ok is false if there is one that must not be (RFC 6891
// §6.1.1).
func edns(m *dns.Msg) (opt *dns.OPT, ok bool) {
	for _, rr := range m.Extra {
		o, is := rr.(*dns.OPT)
		if !is {
			continue
		}
		if opt != nil || o.Hdr.Name != "." {
			return nil, false
		}
		opt = o
	}
	return opt, true
}

// notData are types that ask for an act, such as a transfer of the zone (RFC 6895
// §3.1); ANY is answered.
func notData(kind uint16) bool {
	return kind == dns.TypeOPT || kind >= 128 && kind <= 254
}

// fill answers from the zone that the name lies in.
func (r *responder) fill(ctx context.Context, m *dns.Msg, q dns.Question, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	all, err := r.zones.get(ctx, now)
	if err != nil {
		r.fail(m)
		return
	}
	name := dns.CanonicalName(q.Name)
	z := all.find(name, q.Qtype)
	switch {
	case z == nil:
		r.count.refused.Add(1)
		m.Rcode = dns.RcodeRefused
	case z.broken || r.fromZone(ctx, m, z, question{written: q.Name, name: name, kind: q.Qtype}) != nil:
		r.fail(m)
	default:
		r.count.answered.Add(1)
		m.Authoritative = true
	}
}

// fail takes back whatever was said: a resolver asks another server.
func (r *responder) fail(m *dns.Msg) {
	r.count.failed.Add(1)
	m.Rcode, m.Answer, m.Ns = dns.RcodeServerFailure, nil, nil
}

// A question is a name, as it was written and canonical, and a type.
type question struct {
	written, name string
	kind          uint16
}

// fromZone answers what the zone itself says, else what the source says.
func (r *responder) fromZone(ctx context.Context, m *dns.Msg, z *zone, q question) error {
	if own := z.of(q.name, q.kind); len(own) > 0 {
		m.Answer = renamed(own, q.written)
		if q.kind == dns.TypeNS {
			m.Extra = slices.Concat(z.glue, m.Extra)
		}
		return nil
	}
	values, there, err := r.look(ctx, z, q)
	switch {
	case err != nil:
		return err
	case q.kind == dns.TypeTXT && len(values) > 0:
		m.Answer = z.texts(q.written, values)
	case q.kind == dns.TypeANY && there: // the least that can be said (RFC 8482 §4.2)
		m.Answer = []dns.RR{&dns.HINFO{Hdr: z.header(q.written, dns.TypeHINFO, stable), Cpu: "RFC8482"}}
	default: // the SOA says how long that may be kept (RFC 2308 §3)
		m.Ns = []dns.RR{z.soa}
		if !there {
			m.Rcode = dns.RcodeNameError
		}
	}
	return nil
}

// look asks the source for as little as the question needs.
func (r *responder) look(ctx context.Context, z *zone, q question) (values []string, there bool, err error) {
	there = z.inner[q.name]
	if there && q.kind != dns.TypeTXT {
		return nil, true, nil
	}
	if values, err = r.source.Values(ctx, plain(q.name)); err != nil {
		return nil, false, err
	}
	if there || len(values) > 0 {
		return values, true, nil
	}
	there, err = r.source.Below(ctx, plain(q.name))
	return nil, there, err
}

// texts are TXT records of the values, each once, in a fixed order.
func (z *zone) texts(name string, values []string) (all []dns.RR) {
	for _, v := range slices.Compact(slices.Sorted(slices.Values(values))) {
		all = append(all, &dns.TXT{Hdr: z.header(name, dns.TypeTXT, z.ttl), Txt: Strings(v)})
	}
	return all
}

// renamed are the records under their name as it was asked for.
func renamed(records []dns.RR, name string) (all []dns.RR) {
	for _, rr := range records {
		rr = dns.Copy(rr)
		rr.Header().Name = name
		all = append(all, rr)
	}
	return all
}

func plain(canonical string) string { return strings.TrimSuffix(canonical, ".") }

// pack writes the answer, and as much less of it as must be: what is only
// helpful goes first, then all goes, and the resolver is sent to TCP.
func (r *responder) pack(m, asked *dns.Msg, q query) []byte {
	most := dns.MaxMsgSize
	if q.udp {
		most = udpSize(asked, len(q.packet))
	}
	out, err := m.Pack()
	if err == nil && len(out) > most {
		m.Extra = slices.DeleteFunc(slices.Clone(m.Extra), func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeOPT })
		out, err = m.Pack()
	}
	if err == nil && len(out) > most && q.udp {
		r.count.truncated.Add(1)
		m.Truncated, m.Answer, m.Ns = true, nil, nil
		out, err = m.Pack()
	}
	if err != nil || len(out) > most {
		r.count.failed.Add(1)
		return bare(q.packet, dns.RcodeServerFailure)
	}
	return out
}

// udpSize is how large an answer over UDP may be: what the asker takes (RFC 6891
// §6.2.3), what no path fragments, and what makes no weapon of us.
func udpSize(asked *dns.Msg, length int) int {
	takes := dns.MinMsgSize
	if opt := asked.IsEdns0(); opt != nil {
		takes = max(takes, int(opt.UDPSize()))
	}
	return min(takes, maxUDP, maxTimes*length)
}

// framed puts the length before a message, as TCP wants it (RFC 1035 §4.2.2).
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message))), message...)
}
