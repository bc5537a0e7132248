package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func timeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// answers reports that something takes TCP connections at the address.
func answers(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	c.Close() // it was only to ask
	return true
}

// A process is a line of the machine's table of processes.
type process struct {
	pid, parent int
	command     string // words joined by spaces
}

func processes() (all []process) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // gone meanwhile
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // empty once it has ended
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 || fields[0] == "Z" {
			continue // a zombie holds nothing any more
		}
		parent, _ := strconv.Atoi(fields[1]) // the kernel writes a number
		all = append(all, process{pid, parent, string(bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '}))})
	}
	return all
}

// family is every process that match finds, with all that came from it.
func family(match func(process) bool) (pids []int) {
	all := processes()
	in := map[int]bool{}
	for _, p := range all {
		if p.pid != os.Getpid() && match(p) {
			in[p.pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if in[p.parent] && !in[p.pid] {
				in[p.pid], grown = true, true
			}
		}
	}
	for pid := range in {
		pids = append(pids, pid)
	}
	return pids
}

// mentions finds processes by a path in their command line. Paths are of a
// farm's own folder, so that nothing else on the machine is meant.
func mentions(path string) func(process) bool {
	return func(p process) bool { return strings.Contains(p.command, path) }
}

// end ends processes with all that came from them, as a power cut does, and waits
// until they are gone. They are stopped first: a server would start a new worker
// for one that ends before itself, and nobody would know whose that is.
func end(match func(process) bool) error {
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // no event tells of another's child
		for _, p := range processes() {
			if p.pid != os.Getpid() && match(p) {
				_ = syscall.Kill(p.pid, syscall.SIGSTOP) // it may be gone
			}
		}
		pids := family(match)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("processes %v do not end", pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// folders of farms begin like this; the number of the test's process follows.
const folderPrefix = "/var/lib/certfarm-e2e-"

func newFolder(t testing.TB) string {
	t.Helper()
	//nolint:usetesting // sshd takes no keys from below a folder that everybody may write
	dir, err := os.MkdirTemp("/var/lib", filepath.Base(folderPrefix)+strconv.Itoa(os.Getpid())+"-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755)) // the login and the servers' workers go through it
	return dir
}

// drop ends what was started from a farm's folder and removes it, with its sudo
// rule.
func drop(dir string) error {
	err := end(mentions(dir + "/"))
	return errors.Join(err, os.RemoveAll(dir), os.RemoveAll(sudoersOf(dir)))
}

func sudoersOf(dir string) string { return filepath.Join("/etc/sudoers.d", filepath.Base(dir)) }

// sweep takes away what a test left that was ended by force.
func sweep() {
	dirs, _ := filepath.Glob(folderPrefix + "*") // the pattern is good
	for _, dir := range dirs {
		if pid, _, _ := strings.Cut(strings.TrimPrefix(dir, folderPrefix), "-"); ended(pid) {
			if err := drop(dir); err != nil {
				fmt.Fprintln(os.Stderr, "e2e: sweep:", err)
			}
		}
	}
	accounts, _ := os.ReadFile("/etc/passwd") // useradd says it, if there is none
	for line := range strings.Lines(string(accounts)) {
		name, _, _ := strings.Cut(line, ":")
		if pid, ours := strings.CutPrefix(name, loginPrefix); ours && ended(pid) {
			dropLogin(name)
		}
	}
}

// ended reports that no process has the number.
func ended(pid string) bool {
	if _, err := strconv.Atoi(pid); err != nil {
		return false
	}
	_, err := os.Stat("/proc/" + pid)
	return errors.Is(err, fs.ErrNotExist)
}
