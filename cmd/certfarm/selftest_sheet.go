package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
)

// A sheet is what a self test found, to keep and to send.
type sheet struct {
	Kind       string               `json:"kind"`
	Target     string               `json:"target"`
	Node       string               `json:"node,omitempty"`
	System     string               `json:"system,omitempty" doc:"what the node says it is"`
	Version    string               `json:"version" doc:"of certfarm"`
	Controller string               `json:"controller" doc:"system on which certfarm ran"`
	Began      time.Time            `json:"began"`
	Took       time.Duration        `json:"took" doc:"nanoseconds"`
	Reload     bool                 `json:"reload"`
	Touched    []string             `json:"touched"`
	Rules      []deploytest.Outcome `json:"rules"`
	NotTried   []string             `json:"not_tried,omitempty" doc:"what a shadow place cannot show"`
	Left       string               `json:"left,omitempty" doc:"why the place could not be taken away; empty: it was"`

	Kept     int `json:"kept"`
	Broken   int `json:"broken"`
	NotForIt int `json:"not_for_it"`
	NotRun   int `json:"not_run"`
}

func (s *sheet) sum() {
	for _, o := range s.Rules {
		switch o.Result {
		case deploytest.Kept:
			s.Kept++
		case deploytest.Broken:
			s.Broken++
		case deploytest.NotForIt:
			s.NotForIt++
		case deploytest.NotRun:
			s.NotRun++
		}
	}
}

// exit is the exit code that the sheet stands for.
func (s *sheet) exit() int {
	switch {
	case s.Broken > 0 || s.Left != "":
		return exitFailed
	case s.NotRun > 0:
		return exitPartly
	}
	return exitDone
}

func (s *sheet) line() string {
	text := fmt.Sprintf("%s kept, %d broken", farm.Count(s.Kept, "rule"), s.Broken)
	if s.NotForIt > 0 {
		text += fmt.Sprintf(", %d not for this kind", s.NotForIt)
	}
	if s.NotRun > 0 {
		text += fmt.Sprintf(", %d not run", s.NotRun)
	}
	if s.Left != "" {
		text += ", and something was left there"
	}
	return text
}

// markdown is the sheet for people.
func (s *sheet) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Self test of %s\n\n**%s.**\n\n| | |\n|---|---|\n", s.Kind, s.line())
	fact := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", name, inCell(value))
		}
	}
	fact("target", s.Target)
	fact("node", s.Node)
	fact("system", s.System)
	fact("certfarm", s.Version+" on "+s.Controller)
	fact("began", s.Began.UTC().Format(time.RFC3339))
	fact("took", s.Took.String())
	fact("reloads", map[bool]string{true: "the server was reloaded", false: "none"}[s.Reload])
	b.WriteString("\n## Rules\n\n| rule | result | took |\n|---|---|---|\n")
	for _, o := range s.Rules {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", inCell(o.Rule), strings.ReplaceAll(o.Result, "-", " "), o.Took.Round(time.Millisecond))
	}
	said := false
	for _, o := range s.Rules {
		if o.Result != deploytest.Broken {
			continue
		}
		if !said {
			b.WriteString("\n## What was broken\n")
		}
		said = true
		fmt.Fprintf(&b, "\n### %s\n\n", o.Rule)
		for _, d := range o.Details {
			fmt.Fprintf(&b, "- %s\n", oneLine(d))
		}
	}
	bullets(&b, "What was touched", s.Touched)
	bullets(&b, "What this does not show", s.NotTried)
	if s.Left != "" {
		bullets(&b, "What was left there", []string{s.Left})
	}
	return b.String()
}

func bullets(b *strings.Builder, head string, all []string) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", head)
	for _, one := range all {
		fmt.Fprintf(b, "- %s\n", oneLine(one))
	}
}

func inCell(text string) string { return strings.ReplaceAll(oneLine(text), "|", `\|`) }
