// Tally reads the output of `go test -json` and writes what a person wants to
// see of it: what failed, one line a package, why tests were skipped, what failed
// once more, and on the last line how many tests passed, failed and were skipped. It
// ends with status 1 if anything failed or nothing ran.
//
// With CERTFARM_REQUIRE set a test that was skipped has failed, since CI may not
// skip a real server. Excepted are reasons that name CERTFARM_SOAK or begin with
// "only on " (another system) or "not for " (a contract's clause that this one
// does not offer).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	t := tally{out: os.Stdout, require: os.Getenv("CERTFARM_REQUIRE") != "", said: map[test][]string{}, broken: map[string]bool{}, skipped: map[string][]string{}}
	if err := t.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
	if !t.close() {
		os.Exit(1)
	}
}

// An event is a line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	FailedBuild string
}

// A test is one by its package and name; the package itself has no name.
type test struct{ pkg, name string }

type tally struct {
	out     io.Writer
	require bool
	said    map[test][]string // the output of tests that have not ended
	broken  map[string]bool   // packages in which a test failed
	passed  int
	failed  []failure
	skipped map[string][]string // tests by the reason
}

// A failure is a test or a package that failed, and what it said.
type failure struct {
	what string
	said []string
}

func (t *tally) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(t.out, lines.Text())
			continue
		}
		t.add(e)
	}
	return lines.Err()
}

func (t *tally) add(e event) {
	at := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "output":
		t.said[at] = append(t.said[at], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.endPackage(e)
		} else {
			t.endTest(e.Action, at)
		}
		delete(t.said, at)
	}
}

func (t *tally) endTest(action string, at test) {
	name := at.pkg + " " + at.name
	switch action {
	case "pass":
		t.passed++
	case "skip":
		reason := reason(t.said[at])
		if t.require && !excepted(reason) {
			t.fail(at.pkg, failure{what: name + " was skipped, which CERTFARM_REQUIRE forbids: " + reason})
			return
		}
		t.skipped[reason] = append(t.skipped[reason], name)
	case "fail":
		t.fail(at.pkg, failure{name, t.said[at]})
	}
}

// fail tells of a failure at once; close will again.
func (t *tally) fail(pkg string, f failure) {
	t.failed = append(t.failed, f)
	t.broken[pkg] = true
	fmt.Fprint(t.out, strings.Join(f.said, ""))
}

// endPackage prints the runner's closing line. A package that fails without a
// test that did was not built, or ended before its time: then everything that
// it said is of interest.
func (t *tally) endPackage(e event) {
	said := t.said[test{e.Package, ""}]
	if e.Action == "fail" && !t.broken[e.Package] {
		f := failure{what: e.Package + " as a whole"}
		for at, lines := range t.said {
			if at.pkg == e.Package && at.name != "" {
				f.said = append(f.said, lines...)
			}
		}
		t.fail(e.Package, f)
	}
	if e.Action == "skip" {
		return // no test files
	}
	for _, line := range said {
		if e.Action == "fail" || strings.HasPrefix(line, "ok ") {
			fmt.Fprint(t.out, line)
		}
	}
}

// reason is what a test gave to t.Skip: the line after its source's place.
func reason(said []string) string {
	for _, line := range said {
		place, text, ok := strings.Cut(line, ": ")
		if ok && strings.Contains(place, ".go:") {
			return strings.TrimSpace(text)
		}
	}
	return "no reason given"
}

func excepted(reason string) bool {
	return strings.Contains(reason, "CERTFARM_SOAK") ||
		strings.HasPrefix(reason, "only on ") || strings.HasPrefix(reason, "not for ")
}

// close prints the end, the most important last, and reports whether all is well.
func (t *tally) close() bool {
	skipped := 0
	for _, reason := range slices.Sorted(maps.Keys(t.skipped)) {
		tests := t.skipped[reason]
		skipped += len(tests)
		more := ""
		if len(tests) > 1 {
			more = fmt.Sprintf(" and %d more", len(tests)-1)
		}
		fmt.Fprintf(t.out, "skipped: %s%s: %s\n", tests[0], more, reason)
	}
	for _, f := range t.failed {
		fmt.Fprintf(t.out, "%sfailed: %s\n", strings.Join(f.said, ""), f.what)
	}
	fmt.Fprintf(t.out, "%d passed, %d failed, %d skipped\n", t.passed, len(t.failed), skipped)
	return len(t.failed) == 0 && t.passed > 0
}
