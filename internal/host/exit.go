package host

import (
	"fmt"
	"strings"
)

// What an error shows of what a command wrote, from its end: a server says what is
// wrong with its configuration some lines before it says that something is.
const (
	shownLines = 4
	shownBytes = 600
)

// Error says which command failed, how, and the last lines that it wrote.
func (e *ExitError) Error() string {
	var lines []string
	for line := range strings.Lines(string(e.Output)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	out := strings.Join(lines[max(0, len(lines)-shownLines):], "; ")
	if over := len(out) - shownBytes; over > 0 {
		out = "…" + strings.ToValidUTF8(out[over:], "")
	}
	if out == "" {
		out = "no output"
	}
	return fmt.Sprintf("%s: exit status %d: %s", strings.Join(e.Argv, " "), e.Status, out)
}
