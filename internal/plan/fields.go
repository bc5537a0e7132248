package plan

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// A value is one thing that farm.yaml says, as text for people. Two texts are
// equal if and only if what they show is.
type value struct{ name, text string }

// differences is the values that are not the same in both lists. A name that a
// list lacks counts as empty.
func differences(old, now []value) []Field {
	texts := map[string]string{}
	for _, v := range old {
		texts[v.name] = v.text
	}
	var all []Field
	known := map[string]bool{}
	for _, v := range now {
		known[v.name] = true
		if texts[v.name] != v.text {
			all = append(all, Field{v.name, texts[v.name], v.text})
		}
	}
	for _, v := range old {
		if !known[v.name] && v.text != "" {
			all = append(all, Field{v.name, v.text, ""})
		}
	}
	return all
}

func settings(f farm.Farm) []value {
	all := []value{{"farm", f.Name}, {"proxy", f.Proxy}, {"controllers", list(f.Controllers)}}
	for _, zone := range slices.Sorted(maps.Keys(f.Resolvers)) {
		all = append(all, value{"resolvers." + zone, list(f.Resolvers[zone])})
	}
	for _, w := range f.DNS {
		all = append(all, writer("dns."+w.Name, w)...)
	}
	return append(all, notifications(f.Notifications)...)
}

// writer is a way to write TXT records, as farm.yaml says it.
func writer(at string, w farm.DNS) []value {
	asks := ""
	if w.Resolvers {
		asks = "resolvers"
	}
	all := []value{{at + ".provider", w.Provider}, {at + ".silent", w.Silent.String()}, {at + ".ask", asks}}
	for _, name := range slices.Sorted(maps.Keys(w.Secrets)) {
		all = append(all, value{at + ".secrets." + name, w.Secrets[name].String()})
	}
	return append(all, options(at+".options.", w.Options)...)
}

func issuer(i *farm.Issuer) []value {
	if i == nil {
		return nil
	}
	eab := ""
	if i.EAB != nil {
		eab = fmt.Sprintf("%s, %s", i.EAB.KeyID, i.EAB.HMAC)
	}
	all := []value{
		{"acme", i.Directory}, {"staging", i.Staging}, {"contact", list(i.Contact)}, {"profile", i.Profile},
		{"preferred_chain", i.PreferredChain}, {"roots", roots(i.Roots)}, {"eab", eab},
	}
	if l := i.Limits; l != nil {
		all = append(all, value{"limits.orders", l.Orders.String()}, value{"limits.domain", l.Domain.String()}, value{"limits.names", l.Names.String()},
			value{"limits.accounts", l.Accounts.String()}, value{"limits.failures", l.Failures.String()}, value{"limits.exempt", l.Exempt})
	}
	return all
}

// roots names certificates by their fingerprints.
func roots(text string) string {
	var all []string
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		all = append(all, farm.Short(farm.Fingerprint(block.Bytes)))
	}
	if len(all) == 0 && text != "" {
		return farm.Short(farm.Fingerprint([]byte(text)))
	}
	return list(all)
}

func node(n *farm.Node) []value {
	if n == nil {
		return nil
	}
	all := []value{{"address", n.Address}, {"labels", labels(n.Labels)}, {"shell", n.Shell}, {"become", n.Become}, {"local", yes(n.Local)}, {"agent", yes(n.Agent)}}
	if s := n.SMB; s != nil {
		all = append(all,
			value{"smb.share", s.Share}, value{"smb.port", number(s.Port)}, value{"smb.user", s.User},
			value{"smb.domain", s.Domain}, value{"smb.password", s.Password.String()})
	}
	all = append(all, drains(n.Drain)...)
	if s := n.SSH; s != nil {
		all = append(all,
			value{"ssh.user", s.User}, value{"ssh.port", strconv.Itoa(s.Port)}, value{"ssh.key", s.Key.String()},
			value{"ssh.certificate", s.Certificate}, value{"ssh.certificate_from", named(s.CertificateFrom)},
			value{"ssh.certificate_command", s.CertificateCommand}, value{"ssh.host_key", list(s.HostKeys)}, value{"ssh.host_ca", list(s.HostCAs)},
			value{"ssh.jump", s.Jump}, value{"ssh.receiver", yes(s.Receiver)}, value{"ssh.connect_timeout", s.ConnectTimeout.String()})
	}
	return all
}

// named is where a secret stands, if there is one.
func named(r farm.SecretRef) string {
	if r.IsZero() {
		return ""
	}
	return r.String()
}

// drains says what a node is taken out of, as one would tell it.
func drains(all []farm.Drain) (values []value) {
	for i, d := range all {
		text := "by " + d.Command
		if d.Command == "" {
			text = list(d.Servers) + " of HAProxy at " + strings.TrimSpace(d.HAProxy+" "+d.Socket)
		}
		text += ", wait " + d.Wait.String()
		if d.Last {
			text += ", even the last"
		}
		values = append(values, value{fmt.Sprintf("drain[%d]", i), text})
	}
	return values
}

// certificate is what another certificate is needed for. The order of names and
// of key types means nothing to it.
func certificate(s *farm.Site, issuers string) []value {
	keys := slices.Sorted(slices.Values(s.KeyTypes))
	return []value{
		{"names", list(slices.Sorted(slices.Values(s.Names)))}, {"issuer", issuers}, {"profile", s.Profile},
		{"keys", list(keys)}, {"strategy", string(s.Strategy)},
	}
}

// rest is what a site says beside its certificate, targets and policy. The first
// name is the main one: it is what endpoints are asked for.
func rest(s *farm.Site) []value {
	main := ""
	if len(s.Names) > 0 {
		main = s.Names[0]
	}
	return []value{
		{"main name", main}, {"tags", list(s.Tags)}, {"strategy", string(s.Strategy)},
		{"validation", validations(s.Validations)},
		{"balancers", endpoints(s.Balancers)}, {"behind", endpoints(s.Behind)},
	}
}

// validations says how names are proven, as one would tell it.
func validations(all []farm.Validation) string {
	var texts []string
	for _, v := range all {
		text := v.Method
		for _, more := range []value{
			{" via ", v.Via}, {" to ", v.To}, {" in ", v.Webroot}, {" by ", v.DNS}, {" for ", strings.Join(v.Names, ", ")},
			{" on ", strings.Join(v.Nodes, ", ")}, {" at port ", number(v.Port)}, {" delegated to ", delegated(v.Delegate)},
		} {
			if more.text != "" {
				text += more.name + more.text
			}
		}
		if v.Front {
			text += " on the balancer"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// number is a number that says something: no zero, and no port that goes without
// saying.
func number(port int) string {
	if port == 0 || port == 80 {
		return ""
	}
	return strconv.Itoa(port)
}

func delegated(rules map[string]string) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		texts = append(texts, name+" = "+rules[name])
	}
	return strings.Join(texts, ", ")
}

// installed is what decides how and where a target holds its certificate.
func installed(t *farm.Target) []value {
	all := []value{{"kind", t.Kind}, {"place", t.Identity}, {"group", t.Group}}
	for _, name := range slices.Sorted(maps.Keys(t.Secrets)) {
		all = append(all, value{"secrets." + name, t.Secrets[name].String()})
	}
	if len(t.ReadBy) > 0 {
		all = append(all, value{"on", list(t.ReadBy)})
	}
	return append(all, options("options.", t.Options)...)
}

// pace is when a target may be changed, and how long that takes.
func pace(t *farm.Target) []value {
	return []value{{"deadline", t.Deadline.String()}, {"lag", t.Lag.String()}, {"window", windows(t.Windows)}, {"absent_max", t.AbsentMax.String()}}
}

// options are what a kind or a provider was told, one value each.
func options(at string, text []byte) (all []value) {
	var each map[string]json.RawMessage
	if len(text) > 0 && json.Unmarshal(text, &each) != nil {
		return []value{{strings.TrimSuffix(at, "."), string(text)}}
	}
	for _, name := range slices.Sorted(maps.Keys(each)) {
		all = append(all, value{at + name, plain(each[name])})
	}
	return all
}

// plain is JSON without the quotes of a single text.
func plain(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil && s != "" {
		return s
	}
	return string(raw)
}

// seen is where a target is looked at, and when it is changed. Its labels are
// its node's, and said there.
func seen(t *farm.Target) []value {
	return []value{{"endpoints", endpoints(t.Endpoints)}, {"last wave", yes(t.LastWave)}}
}

func endpoints(all []farm.Endpoint) string {
	var texts []string
	for _, e := range all {
		text := e.Address + " " + e.SNI
		if e.Path != "direct" {
			text += " through " + e.Path
		}
		if e.StartTLS != "" {
			text += " after " + e.StartTLS
		}
		if e.Proxy != 0 {
			text += " with PROXY v" + strconv.Itoa(e.Proxy)
		}
		texts = append(texts, text)
	}
	return list(texts)
}

func policy(p farm.Policy) []value {
	var waves []string
	for _, w := range p.Waves {
		text := w.Name + " " + labels(w.Match)
		if w.Approve {
			text += " with assent"
		}
		waves = append(waves, text)
	}
	return []value{
		{"canary", p.Canary.String()}, {"waves", list(waves)}, {"max_parallel", strconv.Itoa(p.MaxParallel)},
		{"soak", p.Soak.String()}, {"deadline", p.Deadline.String()}, {"healthy_deadline", p.HealthyDeadline.String()},
		{"failure_budget", p.FailureBudget.String()}, {"absent_max", p.AbsentMax.String()},
		{"settle", p.Settle.String()}, {"window", windows(p.Windows)}, {"drift", string(p.Drift)},
	}
}

func windows(all []farm.Window) string {
	var texts []string
	for _, w := range all {
		texts = append(texts, w.String())
	}
	return list(texts)
}

func labels(m map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return list(all)
}

func list[T ~string](all []T) string {
	var texts []string
	for _, s := range all {
		texts = append(texts, string(s))
	}
	return strings.Join(texts, ", ")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
