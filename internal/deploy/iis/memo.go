package iis

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
)

// memo is what is remembered on the node, in its registry, of the certificates of
// one target: http.sys tells which one is served, and nothing on Windows tells who
// brought one. It holds no key and no secret, and anybody on the node may read it.
type memo struct {
	Place string `json:"place"` // for people: which target it is
	Held  []held `json:"held"`
}

// The roles of a certificate.
const (
	staged = "staged"
	live   = "live"
	kept   = "kept" // the way back
)

// held is one certificate.
type held struct {
	Thumb string `json:"thumb"` // SHA-1, as Windows names certificates
	Leaf  string `json:"leaf"`  // SHA-256, as we do
	Store string `json:"store"`
	Role  string `json:"role"`
	For   string `json:"for,omitempty"` // of a kept one: thumb of what it is the way back from
	Own   bool   `json:"own"`           // we brought it; others are never taken away
}

func readMemo(text string) (m memo, err error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		return m, fmt.Errorf("what is remembered in the registry: %w", err)
	}
	return m, nil
}

// writing is a memo on its way to the registry; without certificates it is taken
// away.
type writing struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

func (m memo) writing(id string) writing {
	if len(m.Held) == 0 {
		return writing{ID: id}
	}
	raw, _ := json.Marshal(m) // it is made of texts
	return writing{id, base64.StdEncoding.EncodeToString(raw)}
}

// held is what is remembered of a certificate.
func (m memo) held(thumb string) (held, bool) {
	i := slices.IndexFunc(m.Held, func(h held) bool { return h.Thumb == thumb })
	if i < 0 {
		return held{}, false
	}
	return m.Held[i], true
}

// live is the certificate that was made live last.
func (m memo) live() (held, bool) {
	i := slices.IndexFunc(m.Held, func(h held) bool { return h.Role == live })
	if i < 0 {
		return held{}, false
	}
	return m.Held[i], true
}

// with is a memo in which a certificate is remembered so.
func (m memo) with(h held) memo {
	return memo{m.Place, append(m.without(h.Thumb).Held, h)}
}

// without is a memo that knows nothing of a certificate.
func (m memo) without(thumb string) memo {
	return memo{m.Place, slices.DeleteFunc(slices.Clone(m.Held), func(h held) bool { return h.Thumb == thumb })}
}

// role is a memo in which a certificate that is known has another role.
func (m memo) role(thumb, role, of string) memo {
	h, ok := m.held(thumb)
	if !ok {
		return m
	}
	h.Role, h.For = role, of
	return m.with(h)
}

// promoted is a memo in which a certificate is live, and what was is the way back.
func (m memo) promoted(next string) memo {
	for _, h := range m.Held {
		if h.Role == live && h.Thumb != next {
			m = m.role(h.Thumb, kept, next)
		}
	}
	return m.role(next, live, "")
}

// leftovers are what no receipt that counts needs any more: stagings that were
// never discarded, and ways back from what is not live.
func (m memo) leftovers(next string) (all []held) {
	now, _ := m.live()
	for _, h := range m.Held {
		if h.Thumb != next && (h.Role == staged || h.Role == kept && h.For != now.Thumb) {
			all = append(all, h)
		}
	}
	return all
}
