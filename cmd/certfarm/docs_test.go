package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/access"
)

// TestTheReferenceIsWhole holds docs/cli.md to the commands, the exit codes, the
// permissions that there are.
func TestTheReferenceIsWhole(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, c := range newRoot(&app{ui: &ui{}}).Commands() {
		if c.Hidden {
			continue // certfarm itself runs it
		}
		if !strings.Contains(page, "`"+c.Name()) {
			t.Errorf("the command %s is not in docs/cli.md", c.Name())
		}
		for _, under := range c.Commands() {
			if !strings.Contains(page, under.Name()) {
				t.Errorf("%s is not in docs/cli.md", under.CommandPath())
			}
		}
	}
	for _, code := range []int{exitDone, exitFailed, exitUsage, exitPartly} {
		if !strings.Contains(page, "\n| "+strconv.Itoa(code)+" | ") {
			t.Errorf("the exit code %d is not in docs/cli.md", code)
		}
	}
	for _, p := range access.Permissions() {
		if !strings.Contains(page, "\n| `"+string(p)+"` | ") {
			t.Errorf("the permission %s is not in docs/cli.md", p)
		}
	}
}
