package lab

import "syscall"

// bound has a program end with the lab, however that ends.
func bound(a syscall.SysProcAttr) *syscall.SysProcAttr {
	a.Pdeathsig = syscall.SIGTERM
	return &a
}
