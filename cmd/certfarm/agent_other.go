//go:build !windows

package main

import "context"

// asService runs f. Only on Windows is a service something else than a process.
func asService(ctx context.Context, f func(context.Context) error) error { return f(ctx) }
