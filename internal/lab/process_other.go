//go:build !unix

package lab

import (
	"errors"
	"os"
	"os/exec"
)

// groups says that processes can be ended with all that they started. Where they
// cannot, no real server is run.
const groups = false

func ownGroup(*exec.Cmd) {}

func killGroup(p *os.Process) { _ = p.Kill() } // it may have ended

func askToEnd(p *os.Process) { _ = p.Kill() }

func signalReload(*os.Process) error { return errors.ErrUnsupported }
