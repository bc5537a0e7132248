package provider

import (
	"errors"
	"io"
	"os"
	"os/exec"
)

// systemEnv is what the system wants in every process: without SystemRoot there
// are no sockets.
var systemEnv = []string{"SystemRoot"}

// requestPipe gives a command the pipe that it reads requests from: its input,
// for there are no other inherited files to be had by number.
func requestPipe(cmd *exec.Cmd) (in io.WriteCloser, done func(), err error) {
	in, err = cmd.StdinPipe()
	return in, func() {}, err
}

// requests is the pipe, in the helper.
func requests() (*os.File, error) { return os.Stdin, nil }

// together has nothing to add: clients start no processes of their own here.
func together(*exec.Cmd) {}

// asFile is for settings that name a file.
func asFile(string) (string, error) {
	return "", errors.New("a credential cannot be given as a file here; run the controller on Linux")
}
