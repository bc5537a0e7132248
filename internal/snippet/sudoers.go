package snippet

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A SudoersAsk says what a login may run as root.
type SudoersAsk struct {
	Node     string     // the node's name, for the file's
	User     string     // who the controller logs in as
	Commands [][]string // argv lists, as the node runs them: test, reload, start
}

// usualPaths are where Debian and Red Hat have the programs of servers.
var usualPaths = map[string]string{
	"nginx": "/usr/sbin/nginx", "apachectl": "/usr/sbin/apachectl", "apache2ctl": "/usr/sbin/apache2ctl", "httpd": "/usr/sbin/httpd",
	"haproxy": "/usr/sbin/haproxy", "lighttpd": "/usr/sbin/lighttpd", "systemctl": "/usr/bin/systemctl", "service": "/usr/sbin/service",
}

// Logins that are nothing else to sudo: "ALL" and names in capitals are aliases.
var (
	logins      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9._-]{0,31}$`)
	aliases     = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	programs    = regexp.MustCompile(`^(/[A-Za-z0-9_@%+][A-Za-z0-9_.@%+-]*)+$`)
	commandWord = regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`)
	toEscape    = regexp.MustCompile(`[=:,]`)
)

// Sudoers writes the rule that lets the login run exactly these commands as root,
// with these arguments and no others, without a password: what `become: sudo`
// needs. Words that sudo would take for a pattern are refused.
func Sudoers(a SudoersAsk) (Snippet, error) {
	if !logins.MatchString(a.User) || aliases.MatchString(a.User) {
		return Snippet{}, fmt.Errorf("sudoers rule for %s: user %q is no plain login name", a.Node, a.User)
	}
	var lines, guessed []string
	for _, argv := range a.Commands {
		if full, known := usualPaths[first(argv)]; known {
			if !slices.Contains(guessed, full) {
				guessed = append(guessed, full)
			}
			argv = append([]string{full}, argv[1:]...)
		}
		line, err := sudoCommand(argv)
		if err != nil {
			return Snippet{}, fmt.Errorf("sudoers rule for %s: command %q: %w", a.Node, strings.Join(argv, " "), err)
		}
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return Snippet{}, fmt.Errorf("sudoers rule for %s: it runs no command", a.Node)
	}
	notes := []string{
		"Check it before it counts: visudo -cf FILE. A sudoers file with a mistake can lock everybody out of sudo.",
		"The programs, and the configuration they are given, must be writable by root alone: else the login is root.",
	}
	if len(guessed) > 0 {
		notes = append(notes, "farm.yaml names programs without their folders; they are taken to be "+strings.Join(guessed, ", ")+". Look with `command -v` on the node.")
	}
	// sudo reads no file whose name has a dot.
	file := "/etc/sudoers.d/" + strings.ReplaceAll(identifier(a.Node), "_", "-")
	return Snippet{
		Parts: []Part{{file + ", owned by root, mode 0440", a.User + " ALL=(root) NOPASSWD: \\\n    " + strings.Join(lines, ", \\\n    ") + "\n"}},
		Notes: notes,
	}, nil
}

// sudoCommand is a command as sudoers has it. One without arguments gets "",
// which stands for none: nothing would stand for any.
func sudoCommand(argv []string) (string, error) {
	if len(argv) == 0 || !programs.MatchString(argv[0]) {
		return "", errors.New("it does not begin with the full path of a program; sudo needs one, such as /usr/sbin/nginx")
	}
	words := []string{argv[0]}
	for _, w := range argv[1:] {
		if !commandWord.MatchString(w) {
			return "", fmt.Errorf("the word %q has characters that sudo could take for a pattern; put the command into a script that root owns", w)
		}
		words = append(words, toEscape.ReplaceAllString(w, `\$0`))
	}
	if len(argv) == 1 {
		words = append(words, `""`)
	}
	return strings.Join(words, " "), nil
}

// first is a command's program; of no words it is nothing.
func first(argv []string) string {
	if len(argv) == 0 {
		return ""
	}
	return argv[0]
}
