package main

import (
	"errors"
	"fmt"

	"github.com/certfarm/certfarm/internal/farm"
)

// The exit codes. This is the one table of them; docs/cli.md repeats it.
// `plan --detailed-exitcode` is the one exception: there 2 says that something
// would change, as with Terraform.
const (
	exitDone   = 0 // done
	exitFailed = 1 // failed, or restored: what should be served is not
	exitUsage  = 2 // the command line is wrong; nothing was done
	exitPartly = 3 // done, but some targets are absent or late; or it waits for something
)

// outcome is the exit code that a rollout's state stands for.
func outcome(r farm.Rollout) int {
	switch r.Outcome {
	case farm.Done:
		return exitDone
	case farm.DonePartly, farm.Superseded, farm.Running:
		return exitPartly
	}
	return exitFailed
}

// worse is the exit code of two things done together: a failure outweighs what
// is only partly done.
func worse(a, b int) int {
	for _, code := range []int{exitUsage, exitFailed, exitPartly} {
		if a == code || b == code {
			return code
		}
	}
	return exitDone
}

// An exit is an error with its exit code and what to do about it.
type exit struct {
	code int
	err  error  // nil: all was said already
	hint string // what to do
}

// Error says what went wrong and where.
func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

// Unwrap is the error as it was.
func (e *exit) Unwrap() error { return e.err }

// usage is an error of the command line.
func usage(hint, format string, args ...any) error {
	return &exit{exitUsage, fmt.Errorf(format, args...), hint}
}

// hinted adds what to do to an error.
func hinted(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &exit{exitFailed, err, hint}
}

// quiet ends with a code where everything was said already.
func quiet(code int) error {
	if code == exitDone {
		return nil
	}
	return &exit{code: code}
}

// codeOf is the exit code of a command's error.
func codeOf(err error) int {
	if err == nil {
		return exitDone
	}
	if e, ok := errors.AsType[*exit](err); ok {
		return e.code
	}
	return exitFailed
}
