package host

import (
	"strings"
	"testing"
)

func TestExitErrorShowsTheReason(t *testing.T) {
	for name, c := range map[string]struct {
		output, want string
	}{
		"nothing":       {" \n", "no output"},
		"one line":      {"no such user\n", "no such user"},
		"nginx":         {"nginx: [emerg] cannot load certificate \"/x.pem\"\nnginx: configuration file /etc/nginx.conf test failed\n", "nginx: [emerg] cannot load certificate \"/x.pem\"; nginx: configuration file /etc/nginx.conf test failed"},
		"a long report": {"1\n2\r\n\n3\n4\n5\n", "2; 3; 4; 5"},
		"a long line":   {strings.Repeat("a", 5) + "ü" + strings.Repeat("b", shownBytes-1), "…" + strings.Repeat("b", shownBytes-1)},
	} {
		if got := (&ExitError{Argv: []string{"nginx", "-t"}, Status: 1, Output: []byte(c.output)}).Error(); got != "nginx -t: exit status 1: "+c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
