package lab

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// shell runs the command lines that arrive over SSH. It is no shell of the
// machine: it knows words, quotes, "&&", "||" and ";", and refuses whatever else
// a real one would act on, so that a line which works here is a plain one.
type shell struct {
	root     string // the node's folder
	programs map[string]program
}

// stdio is the input and the output of a program; both outputs are one.
type stdio struct {
	io.Reader
	io.Writer
}

// A program gets its arguments (args[0] is its name) and returns the exit status.
type program func(ctx context.Context, args []string, out stdio) int

// The statuses of a POSIX shell (POSIX.1-2024 XCU 2.8.2) and of timeout(1).
const (
	statusUsage    = 2
	statusTimeout  = 124
	statusNotFound = 127
)

// newShell has the programs that a connection may ask for anywhere.
func newShell(root string) *shell {
	s := &shell{root: root}
	yes := func(context.Context, []string, stdio) int { return 0 }
	no := func(context.Context, []string, stdio) int { return 1 }
	s.programs = map[string]program{
		"true": yes, ":": yes, "sync": yes, "umask": yes, "restorecon": yes, "false": no,
		"test": s.test, "[": s.test, "command": s.command, "echo": echo, "date": date,
		"sudo": s.sudo, "timeout": s.timeout, "env": s.env, "exec": s.rest, "nohup": s.rest, "nice": s.rest, "sh": s.sh,
	}
	return s
}

// date says what time it is, in seconds, whatever it is asked.
func date(_ context.Context, _ []string, out stdio) int {
	_, _ = fmt.Fprintln(out, time.Now().Unix())
	return 0
}

// line runs one line and returns its exit status.
func (s *shell) line(ctx context.Context, line string, out stdio) int {
	words, err := splitLine(line)
	if err != nil {
		_, _ = fmt.Fprintf(out, "sh: %v\n", err)
		return statusUsage
	}
	status := 0
	for skip := false; len(words) > 0; {
		end := 0
		for end < len(words) && !words[end].operator {
			end++
		}
		if !skip {
			status = s.run(ctx, texts(words[:end]), out)
		}
		if end == len(words) {
			break
		}
		op := words[end].text
		skip = op == "&&" && status != 0 || op == "||" && status == 0
		words = words[end+1:]
	}
	return status
}

func (s *shell) run(ctx context.Context, args []string, out stdio) int {
	if len(args) == 0 {
		return 0
	}
	p, ok := s.programs[args[0]]
	if !ok {
		_, _ = fmt.Fprintf(out, "sh: 1: %s: not found\n", args[0])
		return statusNotFound
	}
	return p(ctx, args, out)
}

// rest runs the command that the arguments name, behind the options.
func (s *shell) rest(ctx context.Context, args []string, out stdio) int {
	return s.run(ctx, behindOptions(args[1:], ""), out)
}

// sudo needs no password here: the lab's user is root on its nodes.
func (s *shell) sudo(ctx context.Context, args []string, out stdio) int {
	return s.run(ctx, behindOptions(args[1:], "-u"), out)
}

func (s *shell) env(ctx context.Context, args []string, out stdio) int {
	args = behindOptions(args[1:], "")
	for len(args) > 0 && strings.Contains(args[0], "=") {
		args = args[1:]
	}
	return s.run(ctx, args, out)
}

func (s *shell) sh(ctx context.Context, args []string, out stdio) int {
	if len(args) != 3 || args[1] != "-c" {
		_, _ = fmt.Fprintln(out, "sh: this one knows only sh -c LINE")
		return statusUsage
	}
	return s.line(ctx, args[2], out)
}

// timeout is timeout(1): a command that runs longer ends with status 124.
func (s *shell) timeout(ctx context.Context, args []string, out stdio) int {
	args = behindOptions(args[1:], "-k -s")
	if len(args) < 2 {
		_, _ = fmt.Fprintln(out, "timeout: missing operand")
		return 125
	}
	span := args[0]
	if strings.Trim(span, "0123456789.") == "" {
		span += "s"
	}
	d, err := time.ParseDuration(span)
	if err != nil {
		_, _ = fmt.Fprintf(out, "timeout: invalid time interval %q\n", args[0])
		return 125
	}
	if d > 0 { // 0 is no limit
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	status := s.run(ctx, args[1:], out)
	if ctx.Err() != nil {
		return statusTimeout
	}
	return status
}

// behindOptions drops options; those that are named in valued take the next word.
func behindOptions(args []string, valued string) []string {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		option := args[0]
		args = args[1:]
		if option == "--" {
			break
		}
		if len(args) > 0 && valued != "" && strings.Contains(" "+valued+" ", " "+option+" ") {
			args = args[1:]
		}
	}
	return args
}

// command answers `command -v NAME`, and runs what `command NAME` names.
func (s *shell) command(ctx context.Context, args []string, out stdio) int {
	if len(args) < 2 || args[1] != "-v" {
		return s.rest(ctx, args, out)
	}
	status := statusNotFound
	for _, name := range args[2:] {
		if _, ok := s.programs[name]; ok {
			_, _ = fmt.Fprintf(out, "/usr/bin/%s\n", name)
			status = 0
		}
	}
	return status
}

func echo(_ context.Context, args []string, out stdio) int {
	_, _ = fmt.Fprintln(out, strings.Join(args[1:], " "))
	return 0
}

// test is test(1) for one file or one string.
func (s *shell) test(_ context.Context, args []string, _ stdio) int {
	if args[0] == "[" {
		args = args[:len(args)-1]
	}
	if len(args) != 3 {
		return statusUsage
	}
	var holds bool
	switch args[1] {
	case "-n":
		holds = args[2] != ""
	case "-z":
		holds = args[2] == ""
	default:
		asks, ok := fileTests()[args[1]]
		if !ok {
			return statusUsage
		}
		stat := os.Stat
		if args[1] == "-L" || args[1] == "-h" {
			stat = os.Lstat
		}
		info, err := stat(local(s.root, args[2]))
		holds = err == nil && asks(info)
	}
	if holds {
		return 0
	}
	return 1
}

// fileTests are what test(1) asks of a file that is there.
func fileTests() map[string]func(fs.FileInfo) bool {
	there := func(fs.FileInfo) bool { return true }
	link := func(i fs.FileInfo) bool { return i.Mode()&fs.ModeSymlink != 0 }
	return map[string]func(fs.FileInfo) bool{
		"-e": there, "-r": there, "-w": there, "-x": there, "-L": link, "-h": link,
		"-f": func(i fs.FileInfo) bool { return i.Mode().IsRegular() },
		"-d": func(i fs.FileInfo) bool { return i.IsDir() },
		"-s": func(i fs.FileInfo) bool { return i.Size() > 0 },
	}
}
