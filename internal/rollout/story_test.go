package rollout_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
)

var update = flag.Bool("update", false, "write what happens into testdata")

// noon is when every story begins, a Monday.
var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// TestStories plays testdata/*.txt: commands, "----", and everything that
// happened, up to an empty line. After each command the rollout runs on until it
// waits. See (*story).farm and commands for the words.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s (-written +happened):\n%s", file, diff)
			}
		})
	}
}

// play returns the text with what really happened.
func play(t *testing.T, text string) string {
	var st *story
	var out []string
	for block := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		commands, _, told := strings.Cut(block, "\n----")
		if !told {
			out = append(out, block)
			continue
		}
		var happened bytes.Buffer
		for line := range strings.SplitSeq(commands, "\n") {
			if st != nil {
				st.told = strings.Join(out, "\n\n") + "\n\n" + commands
			}
			words := split(line)
			switch {
			case strings.HasPrefix(line, "#"):
			case words[0] == "farm":
				st = newStory(t, &happened, words[1:])
			default:
				st.out = &happened
				st.do(line, words)
			}
		}
		out = append(out, strings.TrimRight(commands+"\n----\n"+happened.String(), "\n"))
	}
	return strings.Join(out, "\n\n") + "\n"
}

// split cuts a line at spaces; quoted words may hold spaces.
func split(line string) (words []string) {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
			return true
		}
		return r == ' ' && !quoted
	})
}

type story struct {
	*testing.T
	*world
	out   *bytes.Buffer
	until time.Time // of the last decision
	brief bool      // says nothing of waiting for answers
	told  string
	lag   time.Duration
	fixed map[string]bool // targets without undo
}

func (st *story) say(format string, args ...any) { fmt.Fprintf(st.out, format+"\n", args...) }

// at is a time as the story tells it.
func at(t time.Time) string { return "+" + t.Sub(noon).String() }

// commands are what a story may say, besides farm and the answers.
var commands = map[string]func(st *story, words []string){
	"go":      func(*story, []string) {},
	"pause":   func(st *story, _ []string) { st.r.Paused = true },
	"resume":  func(st *story, _ []string) { st.r.Paused = false },
	"freeze":  func(st *story, _ []string) { st.frozen = true },
	"thaw":    func(st *story, _ []string) { st.frozen = false },
	"abort":   func(st *story, words []string) { st.r.Abort = words[0] },
	"approve": func(st *story, words []string) { st.approve(words[0]) },
	"take":    func(st *story, words []string) { st.take(words[0]) },
	"supersede": func(st *story, _ []string) {
		st.r.Superseded = true
	},
	"advance": func(st *story, words []string) { // by a duration, or to the time waited for
		if len(words) == 0 {
			if st.until.IsZero() {
				st.Fatalf("advance: there is no time to wait for\n%s", st.told)
			}
			st.now = st.until
			return
		}
		by, err := time.ParseDuration(words[0])
		if err != nil {
			st.Fatal(err)
		}
		st.now = st.now.Add(by)
	},
	"late": func(st *story, words []string) { // an answer of the attempt before
		a := farm.Answer{Target: words[1], Do: farm.Verb(words[0]), Attempt: st.step(words[1]).Attempt - 1}
		if after := rollout.Record(st.r, a, st.now); !cmp.Equal(after, st.r) {
			st.say("  changed: %s", cmp.Diff(st.r, after))
			return
		}
		st.say("  ignored")
	},
	"steps": func(st *story, _ []string) {
		for _, s := range st.r.Steps {
			st.say("  %s: %s %s %s", s.Target, s.State, s.Fault, s.Error)
		}
	},
	"waves": func(st *story, _ []string) {
		for i, w := range st.r.Waves {
			st.say("  wave %s: %s", w.Name, strings.Join(st.targets(func(s farm.Step) bool { return s.Wave == i }), " "))
		}
	},
	"pressing": func(st *story, _ []string) { st.say("  %t", rollout.Pressing(st.r, st.now)) },
	"well":     (*story).well,
	"keep-failing": func(st *story, words []string) {
		st.keepFailing(farm.Verb(words[0]), strings.Split(words[1], ","), words[2])
	},
}

func (st *story) do(line string, words []string) {
	if command, known := commands[words[0]]; known {
		command(st, words[1:])
		if looks[words[0]] {
			return
		}
	} else if l, known := answers[words[0]]; known {
		st.answer(l, words[1:])
	} else {
		st.Fatalf("no such command: %s", line)
	}
	st.run()
}

// looks are the commands after which nothing is decided.
var looks = map[string]bool{"well": true, "late": true, "steps": true, "waves": true, "pressing": true}

// answers are the commands that answer acts in flight: VERB TARGETS [TEXT].
var answers = map[string]luck{
	"ok": ok, "fail": fails, "refuse": final, "lost": lost, "hollow": hollow,
	"version-fault": faulty, "silent": silent, "dies": dies, "leave": leave,
}

func (st *story) answer(l luck, words []string) {
	do, text := farm.Verb(words[0]), ""
	if len(words) > 2 {
		text = words[2]
	}
	targets := strings.Split(words[1], ",")
	if words[1] == "*" {
		targets = st.targets(func(s farm.Step) bool { return s.Doing == do })
	}
	for _, target := range targets {
		if doing := st.step(target).Doing; doing != do {
			st.Fatalf("%s is not in flight on %s: %q\n%s", do, target, doing, st.told)
		}
		st.record(target, l, text)
	}
}

// record answers what is in flight on the target, and says what comes of it.
func (st *story) record(target string, l luck, text string) {
	before := st.step(target)
	a := st.perform(target, l, text)
	a.Lag, a.NoUndo = st.lag, st.fixed[target]
	st.r = rollout.Record(st.r, a, st.now)
	s := st.step(target)
	switch {
	case s.State == before.State && a.Error == "":
		st.say("  %s: still good", target)
	case s.Leave != before.Leave:
		st.say("  %s: %s (%s), so it is left alone", target, before.Doing, s.Error)
	case s.State == before.State:
		st.say("  %s: %s (%s), again at %s", target, before.Doing, s.Error, at(s.Again))
	case s.Fault != before.Fault:
		st.say("  %s: %s → %s, %s fault: %s", target, before.State, s.State, s.Fault, s.Error)
	case s.State == farm.Absent || s.State == farm.Stuck:
		st.say("  %s: %s → %s (%s)", target, before.State, s.State, s.Error)
	default:
		st.say("  %s: %s → %s", target, before.State, s.State)
	}
}

func (st *story) step(target string) farm.Step {
	s, _ := st.find(target)
	return s
}

func (st *story) targets(match func(farm.Step) bool) (names []string) {
	for _, s := range st.r.Steps {
		if match(s) {
			names = append(names, s.Target)
		}
	}
	return names
}

// run lets the rollout decide until it waits.
func (st *story) run() {
	for range 100 {
		d, err := st.decide()
		if err != nil {
			st.Errorf("%s\nthen: %v", st.out, err)
		}
		for _, act := range d.Acts {
			st.say("> %s %s", act.Do, strings.Join(act.Targets, " "))
		}
		st.until = d.Until
		if len(d.Acts) == 0 {
			st.wait(d)
			return
		}
	}
	st.Fatalf("does not come to rest: %s", st.out)
}

func (st *story) wait(d rollout.Decision) {
	flying := st.targets(func(s farm.Step) bool { return s.Doing != "" })
	switch {
	case d.Outcome != farm.Running:
		st.say("= %s: %s", d.Outcome, d.Why)
		for _, what := range []string{neu, old} {
			serving := st.targets(func(s farm.Step) bool { _, p := st.find(s.Target); return p.serves == what })
			if len(serving) > 0 {
				st.say("  %s: %s", what, strings.Join(serving, " "))
			}
		}
	case !d.Until.IsZero():
		st.say(". until %s: %s", at(d.Until), d.Why)
	case len(flying) > 0:
		if !st.brief {
			st.say(". until answered (%s): %s", strings.Join(flying, " "), d.Why)
		}
	default:
		st.say(". until a person acts: %s", d.Why)
	}
}

// well lets everything go well from here, to the end or until a person is
// needed.
func (st *story) well([]string) {
	st.brief = true
	defer func() { st.brief = false }()
	for range 1000 {
		st.run()
		flying := st.targets(func(s farm.Step) bool { return s.Doing != "" })
		switch {
		case len(flying) > 0:
			for _, target := range flying {
				st.record(target, ok, "")
			}
		case st.r.Outcome == farm.Running && !st.until.IsZero():
			st.now = st.until
		default:
			return
		}
	}
	st.Fatalf("does not come to an end: %s", st.out)
}

// keepFailing lets one act on some targets fail until something comes of each;
// what else is in flight stays so.
func (st *story) keepFailing(do farm.Verb, targets []string, text string) {
	from := st.now
	for range 1000 {
		if _, err := st.decide(); err != nil {
			st.Error(err)
		}
		next := time.Time{}
		for _, target := range slices.Clone(targets) {
			before := st.step(target)
			if before.Doing == do {
				st.r = rollout.Record(st.r, st.perform(target, fails, text), st.now)
			}
			s := st.step(target)
			if s.State != before.State {
				st.say("  %s: %s fails from %s to %s", target, do, at(from), at(st.now))
				st.say("  %s: %s → %s (%s)", target, before.State, s.State, s.Error)
				targets = slices.DeleteFunc(targets, func(t string) bool { return t == target })
			} else if next.IsZero() || s.Again.Before(next) {
				next = s.Again
			}
		}
		if len(targets) == 0 {
			return
		}
		if next.After(st.now) {
			st.now = next
		}
	}
	st.Fatalf("%s %v fails for ever\n%s\n%s\n%s", do, targets, st.told, st.out, table(st.r))
}

func (st *story) approve(wave string) {
	i := slices.IndexFunc(st.r.Waves, func(w farm.Wave) bool { return w.Name == wave })
	st.r.Waves[i].Approved = "alice"
}
