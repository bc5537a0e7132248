//go:build unix

package local

import (
	"os"
	"os/exec"
	"syscall"
)

// syncFolder makes renames in a folder durable.
func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ownerOf is whom a file belongs to; -1 where it is not there.
func ownerOf(name string) (uid, gid int) {
	info, err := os.Lstat(name)
	if err != nil {
		return -1, -1
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1
	}
	return int(s.Uid), int(s.Gid)
}

// held is never so: an open file can be replaced.
func held(error) bool { return false }

// together makes the end of the context end what the command started, too.
func together(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
}
