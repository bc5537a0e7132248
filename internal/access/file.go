package access

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// A File is the bearer tokens of a token file. It keeps their digests only.
type File []line

type line struct {
	name   string
	may    []Permission
	digest [sha256.Size]byte
}

// leastToken is how long a token must be: 128 bits in hex.
const leastToken = 32

// ReadFile reads a token file: a line for each token, `NAME TOKEN`, and after
// that the permissions if it has not all of them (`view,operate`). Empty lines
// and those after # are skipped. A file that others than its user may read is
// refused. An error never shows a line.
func ReadFile(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("token file %s can be read by others (mode %04o): chmod 600 it, and change the tokens", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	var all File
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		l, err := parseLine(fields)
		if err != nil {
			return nil, fmt.Errorf("token file %s, line %d: %w", path, n, err)
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("token file %s: there is no token in it; a line is: NAME TOKEN [view,operate]", path)
	}
	return all, nil
}

func parseLine(fields []string) (line, error) {
	if len(fields) < 2 || len(fields) > 3 {
		return line{}, fmt.Errorf("a line is: NAME TOKEN [view,operate]")
	}
	if len(fields[1]) < leastToken {
		return line{}, fmt.Errorf("the token of %s is too short: make one of %d characters with `openssl rand -hex 32`", fields[0], leastToken)
	}
	l := line{name: fields[0], may: Permissions(), digest: sha256.Sum256([]byte(fields[1]))}
	if len(fields) == 3 {
		l.may = nil
		for word := range strings.SplitSeq(fields[2], ",") {
			p := Permission(word)
			if !slices.Contains(Permissions(), p) {
				return line{}, fmt.Errorf("there is no permission %q: %v", word, Permissions())
			}
			l.may = append(l.may, p)
		}
	}
	return l, nil
}

func (l line) caller() Caller {
	g := Grant{May: l.may}
	if len(l.may) == len(Permissions()) {
		g.Role = Admin
	}
	return Caller{Name: l.name, Via: ViaFile, Key: l.key(), Grants: []Grant{g}}
}

// key names the line, and changes with its token: a session that was opened with an
// older one ends.
func (l line) key() string { return fmt.Sprintf("%s %x", l.name, l.digest[:8]) }

// holding finds who holds a token. It compares digests, and all of them, so that
// the time says nothing about the tokens.
func (f File) holding(bearer string) (Caller, bool) {
	digest := sha256.Sum256([]byte(bearer))
	var found Caller
	for _, l := range f {
		if subtle.ConstantTimeCompare(l.digest[:], digest[:]) == 1 {
			found = l.caller()
		}
	}
	return found, found.Known()
}

// keyed finds the line with a key.
func (f File) keyed(key string) (Caller, bool) {
	for _, l := range f {
		if l.key() == key {
			return l.caller(), true
		}
	}
	return Caller{}, false
}
