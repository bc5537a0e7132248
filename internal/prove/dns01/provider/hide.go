package provider

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// shown is how much of a helper's words an error may have.
const shown = 600

// hiding replaces every secret by a mark: as it is, and as it stands in a URL, in
// JSON, in base64, and in the header of basic authentication beside any other
// setting. Of a secret of several lines, or in JSON, each piece is hidden.
func hiding(secrets, settings []string) *strings.Replacer {
	var all []string
	add := func(text string) {
		if text = strings.TrimSpace(text); text == "" {
			return
		}
		all = append(all, text, url.QueryEscape(text), url.PathEscape(text), inner(strconv.Quote(text)))
		if quoted, err := json.Marshal(text); err == nil {
			all = append(all, inner(string(quoted)))
		}
		all = append(all, encoded(text)...)
	}
	for _, s := range secrets {
		add(s)
		for _, piece := range pieces(s) {
			add(piece)
		}
		for _, user := range settings {
			all = append(all, encoded(user+":"+s)...)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	var pairs []string
	for _, text := range slices.Compact(all) {
		pairs = append(pairs, text, "[secret]")
	}
	return strings.NewReplacer(pairs...)
}

// encoded is a text in base64, in both alphabets, without its padding.
func encoded(text string) []string {
	return []string{base64.RawStdEncoding.EncodeToString([]byte(text)), base64.RawURLEncoding.EncodeToString([]byte(text))}
}

func inner(quoted string) string { return strings.TrimSuffix(strings.TrimPrefix(quoted, `"`), `"`) }

// pieces are the long lines of a secret, and the long texts in one that is JSON.
func pieces(secret string) (all []string) {
	const long = 8
	var fields map[string]any
	if json.Unmarshal([]byte(secret), &fields) == nil {
		for _, v := range fields {
			if text, ok := v.(string); ok && len(text) >= long {
				all = append(all, text)
				all = append(all, pieces(text)...)
			}
		}
		return all
	}
	if strings.Contains(secret, "\n") {
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); len(line) >= long {
				all = append(all, line)
			}
		}
	}
	// Lists of credentials: "one.example:secret,two.example:secret".
	for part := range strings.SplitSeq(secret, ",") {
		if _, value, ok := strings.Cut(part, ":"); ok && len(value) >= long {
			all = append(all, value)
		}
	}
	return all
}

// tidy makes one line of a text, bounded and without control characters.
func tidy(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > shown {
		return string(r[:shown]) + " …"
	}
	return text
}
