package web

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// words are what templates may say.
var words = template.FuncMap{
	"ago":      func(t time.Time) template.HTML { return clock(t, "ago") },
	"age":      func(t time.Time) template.HTML { return clock(t, "age") },
	"when":     func(t time.Time) template.HTML { return clock(t, "when") },
	"short":    short,
	"look":     lookOf,
	"link":     farmPath,
	"sentence": sentence,
	"prose":    prose,
	"plus":     func(a, b int) int { return a + b },

	"count":     farm.Count,
	"lines":     func(n int64) string { return farm.Count(int(n), "line") },
	"grants":    access.Words,
	"grant":     func(g store.Grant) string { return access.Words([]store.Grant{g}) },
	"chain":     links,
	"skew":      skew,
	"standings": func() []farm.Standing { return farm.Standings },
}

func escape(s string) string { return url.PathEscape(s) }

// clock is a time as a page has it: in UTC until a script knows where the reader is.
func clock(t time.Time, show string) template.HTML {
	if t.IsZero() {
		return "–"
	}
	text := t.UTC().Format("2006-01-02 15:04 UTC")
	if show == "ago" || show == "age" {
		text = span(time.Since(t), show)
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" data-show="%s" title="%s">%s</time>`, // all of it is made here
		t.UTC().Format(time.RFC3339), show, t.UTC().Format("2006-01-02 15:04:05 UTC"), text))
}

// span is a length of time as people say it, in its largest unit.
func span(d time.Duration, show string) string {
	text := largest(d.Abs())
	switch {
	case show == "age":
		return text
	case d < 0:
		return "in " + text
	}
	return text + " ago"
}

func largest(d time.Duration) string {
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{365 * 24 * time.Hour, "y"}, {24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}} {
		if d >= u.of {
			return fmt.Sprint(int64(d/u.of), " ", u.name)
		}
	}
	return fmt.Sprint(int64(d/time.Second), " s")
}

// short is the beginning of a fingerprint, as a cell of the matrix has it.
func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), 6)] }

// prose is a sentence in which what stands between backticks is a command.
func prose(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(sentence(text), "`") {
		if part = template.HTMLEscapeString(part); i%2 == 1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String()) // each part was escaped
}

// sentence begins a text with a capital, as a heading has it. What begins with a name
// is left as it is.
func sentence(text string) string {
	if first, _, _ := strings.Cut(text, " "); strings.ContainsAny(first, "/@.") {
		return text
	}
	r, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(r)) + text[n:]
}

// A look is how a word is shown: a sign and a colour beside the word itself.
type look struct{ Class, Sign, Word string }

// looks are the words that say how something stands. Red is only for what needs a
// person.
var looks = map[string]look{
	string(farm.InSync):      {"ok", "●", "in sync"},
	string(farm.Drifted):     {"wait", "▲", "drifted"},
	string(farm.Stranger):    {"person", "✱", "not ours"},
	string(farm.Behind):      {"wait", "◔", "late"},
	string(farm.Unreachable): {"wait", "◌", "serves, not reachable"},
	string(farm.Silent):      {"wait", "■", "down"},
	string(farm.Missing):     {"idle", "○", "no certificate"},
	string(farm.Unseen):      {"idle", "·", "not seen yet"},
	string(farm.Released):    {"idle", "–", "released"},

	"healthy":     {"ok", "●", "healthy"},
	"progressing": {"wait", "◐", "progressing"},
	"degraded":    {"person", "✱", "degraded"},
	"right":       {"ok", "●", "right"},
	"wrong":       {"person", "✱", "wrong"},
	"cannot tell": {"wait", "◌", "cannot tell"},

	string(farm.Planned):  {"idle", "○", "planned"},
	string(farm.Staged):   {"wait", "◔", "staged"},
	string(farm.Active):   {"wait", "◐", "active"},
	string(farm.Verified): {"ok", "●", "verified"},
	string(farm.Absent):   {"wait", "◌", "absent"},
	string(farm.Failed):   {"person", "✱", "failed"},
	string(farm.Restored): {"wait", "↺", "restored"},
	string(farm.Stuck):    {"person", "■", "stuck"},
	string(farm.Left):     {"person", "✱", "left alone"},
	string(farm.Gone):     {"idle", "–", "gone"},

	"running":                   {"wait", "◐", "running"},
	"paused":                    {"wait", "▮", "paused"},
	string(farm.Done):           {"ok", "●", "done"},
	string(farm.DonePartly):     {"wait", "◔", "done, but for some"},
	string(farm.RolledBackPart): {"person", "■", "partly restored"},
	string(farm.Superseded):     {"idle", "–", "superseded"},
	string(farm.Halted):         {"person", "■", "halted"},

	"begun":   {"idle", "◔", "begun"},
	"refused": {"wait", "▲", "refused"},

	"up":          {"ok", "●", "up"},
	"joined":      {"wait", "◔", "joined, never heard of"},
	"silent":      {"wait", "■", "silent"},
	"banned":      {"idle", "–", "banned"},
	"quarantined": {"person", "✱", "in quarantine"},
	"none":        {"wait", "○", "no agent yet"},
	"fenced":      {"ok", "●", "fenced"},
	"conditional": {"idle", "◔", "conditional"},
	"unfenced":    {"idle", "○", "unfenced"},

	"info":    {"idle", "·", "info"},
	"warning": {"wait", "▲", "warning"},
	"alarm":   {"person", "✱", "alarm"},
}

// lookOf is how a word is shown; one that has no look of its own is shown as it is.
func lookOf(word any) look {
	text := fmt.Sprint(word)
	if l, ok := looks[text]; ok {
		return l
	}
	return look{"idle", "·", strings.ReplaceAll(text, "-", " ")}
}

// did is what a page says of the button that led to it.
var did = map[string]string{
	"renew":          "A new certificate is being ordered, as far as the CA's limits allow.",
	"undo":           "That version is being brought back.",
	"verify":         "Every endpoint was asked just now.",
	"pause":          "Nothing more is begun in this rollout.",
	"resume":         "The rollout goes on.",
	"abort":          "Every target is being put back.",
	"approve":        "It may go on.",
	"freeze":         "All activations are stopped.",
	"thaw":           "Activations go on.",
	"hold":           "Nothing is changed on that node.",
	"release":        "The node is changed again.",
	"ask":            "The node was asked just now.",
	"ask-all":        "Every node was asked just now.",
	"restore-target": "It is being brought back to what it should hold.",
	"import":         "That certificate is the site's newest now, and is being rolled out.",
	"revoke-token":   "The token opens nothing any more.",
	"end-session":    "That browser is logged out.",
	"test-receivers": "A message was sent; the table says what became of it.",
	"apply":          "The farm.yaml is applied.",
}

// A link is one certificate of a chain.
type link struct {
	Subject, Issuer, Fingerprint string
	NotAfter                     time.Time
}

// links are the certificates of a chain in PEM; what is none is left out.
func links(chain []byte) (all []link) {
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		all = append(all, link{named(c.Subject), named(c.Issuer), farm.Fingerprint(block.Bytes), c.NotAfter})
	}
	return all
}

// named is a name of X.500 in a few words; leaves often have none.
func named(n pkix.Name) string { return cmp.Or(n.CommonName, n.String(), "no name of its own") }

// skew is how a clock differs from ours, in words.
func skew(d time.Duration) string {
	switch {
	case d.Abs() < 2*time.Second:
		return "right"
	case d > 0:
		return largest(d) + " ahead"
	}
	return largest(-d) + " behind"
}
