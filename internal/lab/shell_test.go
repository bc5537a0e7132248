package lab

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/host"
)

func TestSplitLineReadsWhatHostQuotes(t *testing.T) {
	for _, argv := range [][]string{
		{"webd", "-t"},
		{"a b", "", "it's", `"`, `\`, "$HOME", "a;b", "a\nb", "&&", "*", "ø", "#"},
		{"test", "-f", "/etc/tls/it's here.pem"},
	} {
		line, err := host.Quote(host.Posix, argv)
		must(t, err)
		words, err := splitLine(line)
		if err != nil || !slices.Equal(texts(words), argv) {
			t.Errorf("%s: %q %v, want %q", line, texts(words), err, argv)
		}
	}
}

func TestSplitLineRefuses(t *testing.T) {
	for _, line := range []string{"a > b", "a < b", "a | b", "a &", "$(a)", "`a`", "$A", `"$A"`, "'a", `"a`, `a\`, "(a)", "*.pem"} {
		if words, err := splitLine(line); err == nil {
			t.Errorf("%s: read as %q", line, texts(words))
		}
	}
}

func FuzzSplitLine(f *testing.F) {
	f.Add("webd", "it's")
	f.Add("", "\\\"$`")
	f.Fuzz(func(t *testing.T, a, b string) {
		line, err := host.Quote(host.Posix, []string{"x", a, b})
		if err != nil {
			t.Skip()
		}
		words, err := splitLine(line)
		if err != nil || !slices.Equal(texts(words), []string{"x", a, b}) {
			t.Errorf("%s: %q %v", line, texts(words), err)
		}
	})
}

func TestShell(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(root+"/file", []byte("x"), 0o600))
	s := newShell(root)
	s.programs["slow"] = func(ctx context.Context, _ []string, _ stdio) int {
		<-ctx.Done()
		return 1
	}
	s.programs["say"] = echo
	for line, want := range map[string]struct {
		status int
		out    string
	}{
		"true":                                 {0, ""},
		"false":                                {1, ""},
		"nothing-like-it":                      {127, "sh: 1: nothing-like-it: not found\n"},
		"sudo -n -- say a":                     {0, "a\n"},
		"sudo -n -u root say a":                {0, "a\n"},
		"timeout -k 5 5 sudo -n -- say 'a  b'": {0, "a  b\n"},
		"timeout 0.01 slow":                    {124, ""},
		"timeout 5":                            {125, "timeout: missing operand\n"},
		"env LANG=C say a":                     {0, "a\n"},
		"command -v timeout":                   {0, "/usr/bin/timeout\n"},
		"command -v frobnicate":                {127, ""},
		"true && say yes || say no":            {0, "yes\n"},
		"false && say yes || say no; say end":  {0, "no\nend\n"},
		"sh -c 'false; say a'":                 {0, "a\n"},
		"test -f /file":                        {0, ""},
		"[ -d /file ]":                         {1, ""},
		"test -e /none":                        {1, ""},
		"test -f /../../file":                  {0, ""},
		"say a > /file":                        {2, "sh: '>' is not for plain commands; it must be quoted\n"},
		"":                                     {0, ""},
	} {
		var out bytes.Buffer
		begun := time.Now()
		if status := s.line(t.Context(), line, stdio{strings.NewReader(""), &out}); status != want.status || out.String() != want.out {
			t.Errorf("%s: status %d, %q; want %d, %q", line, status, out.String(), want.status, want.out)
		}
		if time.Since(begun) > 2*time.Second {
			t.Errorf("%s: took %s", line, time.Since(begun))
		}
	}
}
