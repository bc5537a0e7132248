package host

import (
	"fmt"
	"strings"
)

// Error says which command failed, how, and the last line that it wrote.
func (e *ExitError) Error() string {
	out := strings.TrimSpace(string(e.Output))
	if i := strings.LastIndexByte(out, '\n'); i >= 0 {
		out = out[i+1:]
	}
	if out == "" {
		out = "no output"
	}
	return fmt.Sprintf("%s: exit status %d: %s", strings.Join(e.Argv, " "), e.Status, out)
}
