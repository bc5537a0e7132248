//go:build unix && !linux

package lab

import "syscall"

// bound has a program end with the lab, as far as the system can.
func bound(a syscall.SysProcAttr) *syscall.SysProcAttr { return &a }
