//go:build unix

package lab

import (
	"os"
	"os/exec"
	"syscall"
)

// groups says that processes can be ended with all that they started.
const groups = true

// ownGroup makes a program the first of a process group, so that Ctrl-C in a
// terminal is the lab's alone.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = bound(syscall.SysProcAttr{Setpgid: true}) }

// killGroup ends a program that has not been waited for, and all that it started.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) } // it may have ended

// askToEnd asks a program that has not been waited for, and all that it started, to
// end.
func askToEnd(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGTERM) } // it may have ended

// signalReload is how HAProxy's master is told to read its files anew.
func signalReload(p *os.Process) error { return p.Signal(syscall.SIGUSR2) }
