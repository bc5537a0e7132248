package boulder

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// records finds the records of a name, through CNAMEs, which an authoritative
// server may leave to us.
func (l look) records(ctx context.Context, name string, kind uint16) ([]dns.RR, *problem) {
	what := dns.TypeToString[kind] + " for " + name
	target := dns.CanonicalName(name)
	for hops := 0; hops < 10 && target != ""; hops++ {
		reply, err := l.ask(ctx, target, kind)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "dns", "DNS problem: query timed out looking up %s", what)
		}
		found, next := chase(reply.Answer, target, kind)
		if len(found) > 0 || next == target {
			return found, l.nothing(reply, target, kind, what)
		}
		target = next
	}
	return nil, refuse(http.StatusBadRequest, "dns", "DNS problem: too many CNAMEs looking up %s", what)
}

// nothing says what is wrong with an answer, if anything: a name need not exist
// to have no CAA record, and an authoritative server does not know about the top.
func (l look) nothing(reply *dns.Msg, name string, kind uint16, what string) *problem {
	caa := kind == dns.TypeCAA
	switch {
	case reply.Rcode == dns.RcodeSuccess, reply.Rcode == dns.RcodeNameError && caa,
		reply.Rcode == dns.RcodeRefused && caa && dns.CountLabel(name) == 1:
		return nil
	case reply.Rcode == dns.RcodeNameError:
		return refuse(http.StatusBadRequest, "dns", "DNS problem: NXDOMAIN looking up %s - check that a DNS record exists for this domain", what)
	}
	return refuse(http.StatusBadRequest, "dns", "DNS problem: %s looking up %s", dns.RcodeToString[reply.Rcode], what)
}

// chase follows the CNAMEs of one answer to the records, or to where to ask next;
// "" stands for a loop.
func chase(answer []dns.RR, target string, kind uint16) ([]dns.RR, string) {
	for range len(answer) + 1 {
		var found []dns.RR
		next := ""
		for _, r := range answer {
			if dns.CanonicalName(r.Header().Name) != target {
				continue
			}
			if r.Header().Rrtype == kind {
				found = append(found, r)
			} else if c, ok := r.(*dns.CNAME); ok {
				next = dns.CanonicalName(c.Target)
			}
		}
		if len(found) > 0 || next == "" {
			return found, target
		}
		target = next
	}
	return nil, ""
}

// ask asks over UDP, twice, and over TCP for what does not fit.
func (l look) ask(ctx context.Context, name string, kind uint16) (reply *dns.Msg, err error) {
	m := new(dns.Msg).SetQuestion(name, kind)
	m.SetEdns0(1232, true)
	client := &dns.Client{Timeout: 2 * time.Second}
	for range 2 {
		if reply, _, err = client.ExchangeContext(ctx, m, l.o.DNS); err == nil {
			break
		}
	}
	if err == nil && reply.Truncated {
		client.Net = "tcp"
		reply, _, err = client.ExchangeContext(ctx, m, l.o.DNS)
	}
	return reply, err
}

// caa asks whether we may issue (RFC 8659), by this method for this account (RFC 8657).
func (l look) caa(ctx context.Context) *problem {
	if l.name.Type == "ip" {
		return nil
	}
	for name := l.name.Value; name != ""; _, name, _ = strings.Cut(name, ".") {
		found, p := l.records(ctx, name, dns.TypeCAA)
		if p != nil {
			return p
		}
		if len(found) > 0 {
			return l.permitted(name, found)
		}
	}
	return nil
}

func (l look) permitted(at string, found []dns.RR) *problem {
	tagged := map[string][]*dns.CAA{}
	for _, r := range found {
		record, ok := r.(*dns.CAA)
		if !ok {
			continue
		}
		tag := strings.ToLower(record.Tag)
		tagged[tag] = append(tagged[tag], record)
		if record.Flag&128 != 0 && !slices.Contains([]string{"issue", "issuewild", "iodef"}, tag) {
			return refuse(http.StatusForbidden, "caa", "CAA record for %s prevents issuance: unknown critical tag %q", at, tag)
		}
	}
	which := tagged["issue"]
	if l.wildcard && len(tagged["issuewild"]) > 0 {
		which = tagged["issuewild"]
	}
	if len(which) == 0 {
		return nil
	}
	if slices.ContainsFunc(which, l.granted) {
		return nil
	}
	return refuse(http.StatusForbidden, "caa", "CAA record for %s prevents issuance", at)
}

func (l look) granted(record *dns.CAA) bool {
	issuer, said, ok := issueValue(record.Value)
	account, pinned := said["accounturi"]
	methods, listed := said["validationmethods"]
	return ok && issuer == l.o.Identity && (!pinned || account == l.account) &&
		(!listed || slices.Contains(strings.Split(methods, ","), l.method))
}

// issueValue reads "ca.test; tag=value; …" (RFC 8659 §4.2); tags in lower case.
func issueValue(value string) (issuer string, said map[string]string, ok bool) {
	parts := strings.Split(value, ";")
	said = map[string]string{}
	for _, part := range parts[1:] {
		if part = strings.TrimSpace(part); part == "" && len(parts) == 2 {
			continue // "ca.test;"
		}
		tag, v, found := strings.Cut(part, "=")
		tag = strings.ToLower(strings.TrimSpace(tag))
		if _, twice := said[tag]; !found || twice || tag == "" {
			return "", nil, false
		}
		said[tag] = strings.TrimSpace(v)
	}
	return strings.TrimSpace(parts[0]), said, true
}
