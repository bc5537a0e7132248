package main

import "os"

// memory looks like a folder.
const memory = "/dev/shm"

// othersDir makes a folder for what other machines than the controller's keep. Each has a
// disk of its own, and so it is in memory where that can be, and in dir elsewhere; who
// asked for it takes it away.
func othersDir(dir string) (string, error) {
	if _, err := os.Stat(memory); err == nil {
		dir = memory
	}
	return os.MkdirTemp(dir, "certfarm-bench-")
}
