//go:build unix

package provider

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// systemEnv is what the system wants in every process.
var systemEnv []string

// requestFD is where a helper reads its requests: not its input, which some
// client might read, or show.
const requestFD = 3

// requestPipe gives a command the pipe that it reads requests from. done closes
// the command's end here, once it is started.
func requestPipe(cmd *exec.Cmd) (in io.WriteCloser, done func(), err error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.ExtraFiles = []*os.File{theirs}
	return ours, func() { _ = theirs.Close() }, nil
}

// requests is the pipe, in the helper.
func requests() (*os.File, error) {
	f := os.NewFile(requestFD, "requests")
	if f == nil {
		return nil, errors.New("there is no file 3")
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeNamedPipe == 0 {
		return nil, errors.New("file 3 is no pipe")
	}
	syscall.CloseOnExec(requestFD)
	return f, nil
}

// together makes a kill end what the helper started, too.
func together(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
}

// asFile offers a text as a file that can be read once and is on no disk.
func asFile(text string) (name string, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer w.Close()
	const room = 16 << 10 // what any pipe holds
	if len(text) > room {
		return "", errors.New("it is too long")
	}
	if _, err := w.WriteString(text); err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/fd/%d", r.Fd()), nil // r stays open as long as the helper runs
}
