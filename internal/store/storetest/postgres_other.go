//go:build !linux

package storetest

import "errors"

// start is for Linux only, where a child can be made to die with its parent.
func start() (address string, stop func(), err error) {
	return "", nil, errors.New("a server is started on Linux only")
}
