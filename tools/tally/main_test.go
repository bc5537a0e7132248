package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	line := func(action, test, output string) string {
		return `{"Action":"` + action + `","Package":"p","Test":"` + test + `","Output":"` + output + `"}` + "\n"
	}
	ok := line("output", "", `ok  \tp\t0.1s\n`) + line("pass", "", "")
	skip := func(reason string) string {
		return line("output", "B", `=== RUN   B\n`) + line("output", "B", `    b_test.go:7: `+reason+`\n`) + line("skip", "B", "")
	}
	for name, c := range map[string]struct {
		in      string
		require bool
		good    bool
		out     []string // in this order, the last is the last line
		never   string
	}{
		"all well": {line("output", "A", `noise\n`) + line("pass", "A", "") + ok, false, true,
			[]string{"ok  \tp\t0.1s", "1 passed, 0 failed, 0 skipped"}, "noise"},
		"one fails": {line("pass", "A", "") + line("output", "B", `why\n`) + line("fail", "B", "") + line("output", "", `FAIL\tp\n`) + line("fail", "", ""), false, false,
			[]string{"why", "FAIL\tp", "why", "failed: p B", "1 passed, 1 failed, 0 skipped"}, "whole"},
		"one is skipped": {line("pass", "A", "") + skip("needs nginx") + ok, false, true,
			[]string{"skipped: p B: needs nginx", "1 passed, 0 failed, 1 skipped"}, ""},
		"some are skipped": {line("pass", "A", "") + skip("needs nginx") + skip("needs nginx") + ok, false, true,
			[]string{"skipped: p B and 1 more: needs nginx", "1 passed, 0 failed, 2 skipped"}, ""},
		"none may be skipped": {line("pass", "A", "") + skip("needs nginx") + ok, true, false,
			[]string{"failed: p B was skipped, which CERTFARM_REQUIRE forbids: needs nginx", "1 passed, 1 failed, 0 skipped"}, ""},
		"but soaks may": {line("pass", "A", "") + skip("set CERTFARM_SOAK=1 for it") + ok, true, true,
			[]string{"1 passed, 0 failed, 1 skipped"}, ""},
		"other systems too": {line("pass", "A", "") + skip("only on Windows") + ok, true, true,
			[]string{"1 passed, 0 failed, 1 skipped"}, ""},
		"no build": {`{"Action":"build-output","ImportPath":"p","Output":"x.go:1: no\n"}` + "\n" + line("output", "", `FAIL\tp [build failed]\n`) + line("fail", "", ""), false, false,
			[]string{"x.go:1: no", "FAIL\tp [build failed]", "failed: p as a whole", "0 passed, 1 failed, 0 skipped"}, ""},
		"dies within a test": {line("output", "A", `panic: oh\n`) + line("output", "", `FAIL\tp\n`) + line("fail", "", ""), false, false,
			[]string{"panic: oh", "failed: p as a whole", "0 passed, 1 failed, 0 skipped"}, ""},
		"nothing ran":   {"", false, false, []string{"0 passed, 0 failed, 0 skipped"}, ""},
		"what is plain": {"go: oh\n" + line("pass", "A", "") + ok, false, true, []string{"go: oh", "1 passed, 0 failed, 0 skipped"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			tally := tally{out: &out, require: c.require, said: map[test][]string{}, broken: map[string]bool{}, skipped: map[string][]string{}}
			if err := tally.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if good := tally.close(); good != c.good {
				t.Errorf("well: %v, want %v", good, c.good)
			}
			rest := out.String()
			for _, want := range c.out {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("%q is not in its place in\n%s", want, out.String())
				}
				rest = after
			}
			if rest != "\n" || c.never != "" && strings.Contains(out.String(), c.never) {
				t.Errorf("more than was wanted:\n%s", out.String())
			}
		})
	}
}
