package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/certfarm/certfarm/internal/snippet"
)

const (
	units = "/etc/systemd/system"
	unit  = units + "/" + Name + ".service"
	// booted is there while systemd runs the machine: sd_booted(3).
	booted = "/run/systemd/system"
)

// A machine is where the agent is made a service. Tests have one in a folder.
type machine struct {
	root      string // in front of every path; empty but in tests
	systemctl func(ctx context.Context, words ...string) error
}

func here() machine { return machine{systemctl: systemctl} }

func (m machine) at(path string) string { return filepath.Join(m.root, path) }

func (m machine) has(path string) bool {
	_, err := os.Lstat(m.at(path))
	return err == nil
}

// Allowed reports whether this process may carry a plan out; see ErrNotAllowed.
func Allowed() error {
	if os.Geteuid() != 0 {
		return ErrNotAllowed
	}
	return nil
}

// Install is what makes the agent a service.
func Install(a Ask) (Plan, error) { return here().install(a) }

// Uninstall is what takes the service away. The agent's key and the policy stay.
func Uninstall() (Plan, error) { return here().uninstall() }

func (m machine) install(a Ask) (p Plan, err error) {
	text, err := snippet.AgentUnit(a)
	if err != nil {
		return p, err
	}
	if !m.has(units) {
		return p, fmt.Errorf("this machine has no systemd (%s is not there): have its own supervisor run `certfarm agent run`", units)
	}
	if hidden(a.Program) {
		return p, fmt.Errorf("%s lies where the unit sees nothing (ProtectHome, PrivateTmp): copy the program to /usr/local/bin and install from there", a.Program)
	}
	p.Steps = append(p.Steps, m.folder(a.State, 0o700, 0o077)...)
	p.Steps = append(p.Steps, m.folder(filepath.Dir(a.Policy), 0o755, 0o022)...)
	for _, w := range a.Writes {
		if !m.has(w) { // a unit does not start without; else it is the server's, and stays as it is
			p.Steps = append(p.Steps, m.folder(w, 0o755, 0)...)
		}
	}
	changed := m.differs(text)
	if changed {
		p.Steps = append(p.Steps, Step{"write " + unit, func(context.Context) error { return m.write(text) }})
	}
	p.Steps, p.Rest = append(p.Steps, m.starting(a, changed)...), lacks(a, "systemctl start "+Name)
	if !m.has(a.Policy) {
		p.Rest = append(p.Rest, "say what may be done here: certfarm snippet policy NODE at a controller, into "+a.Policy+" on this machine, owned by root")
	}
	if !m.has(booted) {
		p.Rest = append(p.Rest, "systemd does not run here now: the agent starts when it does")
	}
	return p, nil
}

// starting has systemd know of the unit, and start it where that makes sense.
func (m machine) starting(a Ask, changed bool) (steps []Step) {
	runs := m.has(booted)
	if changed && runs {
		steps = append(steps, m.call("daemon-reload"))
	}
	steps = append(steps, m.call("enable", Name))
	switch {
	case !runs || !joined(m.at(a.State)):
	case changed:
		steps = append(steps, m.call("restart", Name))
	default:
		steps = append(steps, m.call("start", Name))
	}
	return steps
}

func (m machine) uninstall() (p Plan, err error) {
	if !m.has(unit) {
		return p, nil
	}
	if m.has(booted) {
		p.Steps = append(p.Steps, m.call("stop", Name))
	}
	p.Steps = append(p.Steps, m.call("disable", Name), Step{"remove " + unit, func(context.Context) error {
		if err := os.Remove(m.at(unit)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the unit: %w", err)
		}
		return nil
	}})
	if m.has(booted) {
		p.Steps = append(p.Steps, m.call("daemon-reload"))
	}
	return p, nil
}

// hidden reports that a unit with ProtectHome and PrivateTmp does not see a program.
func hidden(program string) bool {
	return slices.ContainsFunc([]string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"}, func(in string) bool { return strings.HasPrefix(program, in) })
}

// folder is the step that makes a folder root's, with none of the rights that nobody may
// have; none where it is so.
func (m machine) folder(path string, mode, without fs.FileMode) []Step {
	info, err := os.Stat(m.at(path))
	if err == nil && info.IsDir() && info.Mode().Perm()&without == 0 && owner(info) == os.Geteuid() {
		return nil
	}
	what := fmt.Sprintf("folder %s, %04o, owner root", path, mode)
	if err == nil {
		mode = info.Mode().Perm() &^ without
		what = fmt.Sprintf("folder %s is made %04o, owner root", path, mode)
	}
	return []Step{{what, func(context.Context) error {
		if err := os.MkdirAll(m.at(path), mode); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		if err := os.Chown(m.at(path), os.Geteuid(), os.Getegid()); err != nil {
			return fmt.Errorf("own a folder: %w", err)
		}
		return os.Chmod(m.at(path), mode) //nolint:wrapcheck // it names the folder
	}}}
}

// owner is the user of a file; -1: it is not known.
func owner(info fs.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

// differs reports that the unit is not as it should be.
func (m machine) differs(text string) bool {
	had, err := os.ReadFile(m.at(unit))
	return err != nil || !bytes.Equal(had, []byte(text))
}

// write puts the unit in its place, old or new and never a part of it.
func (m machine) write(text string) error {
	next := m.at(unit) + ".next"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil { //nolint:gosec // units are read by all
		return fmt.Errorf("write the unit: %w", err)
	}
	if err := os.Rename(next, m.at(unit)); err != nil {
		return fmt.Errorf("write the unit: %w", err)
	}
	return nil
}

func (m machine) call(words ...string) Step {
	return Step{"systemctl " + strings.Join(words, " "), func(ctx context.Context) error { return m.systemctl(ctx, words...) }}
}

func systemctl(ctx context.Context, words ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", words...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(words, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
