package sshserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// WindowsShell is an Exec that takes a line apart as OpenSSH for Windows, its shell and
// the program's own start would, by their documented rules, and hands the words to
// run, which returns the status and the output. It is no shell: a line that would do
// anything else than run one program is refused with the status 255.
//
// With cmd the server runs `cmd.exe /c "LINE"`, with PowerShell `powershell.exe -c
// LINE` (session.c of openssh-portable for Windows, do_exec_windows).
func WindowsShell(shell string, env map[string]string, run func(argv []string) (int, string)) func(context.Context, string, io.Reader, io.Writer) int {
	return func(_ context.Context, line string, _ io.Reader, out io.Writer) int {
		words := func() ([]string, error) { return CmdWords(`"`+line+`"`, env) }
		if shell == "powershell" {
			words = func() ([]string, error) { return PowerShellWords(line) }
		}
		argv, err := words()
		if err != nil {
			fmt.Fprintln(out, err)
			return 255
		}
		status, text := run(argv)
		_, _ = io.WriteString(out, text)
		return status
	}
}

// CmdWords is what a program gets of a line after `cmd.exe /c`: what is between
// outer quotes; variables expanded as on a command line, where an unknown one stays
// as it is; carets read outside of quotes; and then what CommandLineToArgvW makes of
// it (cmd /?; "Parsing C++ command-line arguments").
func CmdWords(line string, env map[string]string) ([]string, error) {
	if inner, ok := strings.CutPrefix(line, `"`); ok { // cmd /?: it is no program's name, so the first and the last go
		i := strings.LastIndexByte(inner, '"')
		if i < 0 {
			return nil, errors.New("cmd: a quote without its end")
		}
		line = inner[:i] + inner[i+1:]
	}
	plain, err := carets(percents(line, env))
	if err != nil {
		return nil, err
	}
	if first, _, _ := strings.Cut(plain, " "); !strings.HasPrefix(first, `"`) && strings.ContainsAny(first, "/,;=") {
		return nil, fmt.Errorf("cmd: %q is not recognized as an internal or external command", first)
	}
	return argvW(plain), nil
}

// percents expands variables.
func percents(line string, env map[string]string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(line, '%')
		if i < 0 {
			return b.String() + line
		}
		b.WriteString(line[:i])
		line = line[i:]
		end := strings.IndexByte(line[1:], '%')
		if end >= 0 {
			name, _, _ := strings.Cut(line[1:1+end], ":")
			if value, known := env[strings.ToUpper(name)]; known { // with a substitution it is another text, and no better
				b.WriteString(value)
				line = line[end+2:]
				continue
			}
		}
		b.WriteByte('%')
		line = line[1:]
	}
}

// carets takes the carets away that quote something, and refuses what is more than
// one command.
func carets(line string) (string, error) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '^':
			if i++; i == len(line) {
				return b.String(), nil
			}
			c = line[i]
		case strings.IndexByte("&|<>()\r\n", c) >= 0:
			return "", fmt.Errorf("cmd: %q is for the shell", c)
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// argvW is CommandLineToArgvW, with the rule of the C runtime for two quotes in
// quotes left out: who quotes well writes none.
func argvW(line string) (words []string) {
	program, rest := line, ""
	if unquoted, ok := strings.CutPrefix(line, `"`); ok {
		program, rest, _ = strings.Cut(unquoted, `"`)
	} else if i := strings.IndexAny(line, " \t"); i >= 0 {
		program, rest = line[:i], line[i:]
	}
	words = append(words, program)
	for {
		if rest = strings.TrimLeft(rest, " \t"); rest == "" {
			return words
		}
		var word string
		word, rest = wordW(rest)
		words = append(words, word)
	}
}

// wordW is the first word of a line: backslashes count before a quote alone, two for
// one, and an odd one makes the quote a character.
func wordW(line string) (word, rest string) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		slashes := len(line[i:]) - len(strings.TrimLeft(line[i:], `\`))
		i += slashes
		if i == len(line) || line[i] != '"' {
			b.WriteString(strings.Repeat(`\`, slashes))
		} else {
			b.WriteString(strings.Repeat(`\`, slashes/2))
		}
		switch {
		case i == len(line):
		case line[i] == '"' && slashes%2 == 0:
			quoted = !quoted
		case !quoted && (line[i] == ' ' || line[i] == '\t'):
			return b.String(), line[i:]
		default:
			b.WriteByte(line[i])
		}
	}
	return b.String(), ""
}

// PowerShellWords is what a program gets of a line of PowerShell of the one form
// `…; & 'word' 'word' …; …`: words in single quotes, in which a doubled quote of any
// sort is one (about_Quoting_Rules), passed on as Windows PowerShell 5.1 does: a word
// with a space gets double quotes around it and nothing else is changed
// (about_Parsing).
func PowerShellWords(line string) ([]string, error) {
	_, line, found := strings.Cut(line, "& ")
	if !found {
		return nil, errors.New("powershell: the line calls nothing")
	}
	words, err := singleQuoted([]rune(line))
	if err != nil {
		return nil, err
	}
	passed := `"` + words[0] + `"`
	for _, w := range words[1:] {
		if strings.ContainsFunc(w, unicode.IsSpace) {
			w = `"` + w + `"`
		}
		passed += " " + w
	}
	return argvW(passed), nil
}

// singleQuoted takes words in single quotes apart, up to a semicolon.
func singleQuoted(text []rune) (words []string, err error) {
	for i := 0; i < len(text) && text[i] != ';'; i++ {
		if text[i] == ' ' {
			continue
		}
		if !isQuote(text[i]) {
			return nil, fmt.Errorf("powershell: %q is for the shell", string(text[i:]))
		}
		var word []rune
		for i++; i < len(text); i++ {
			if isQuote(text[i]) {
				if i+1 == len(text) || !isQuote(text[i+1]) {
					break
				}
				i++
			}
			word = append(word, text[i])
		}
		if i == len(text) {
			return nil, errors.New("powershell: a quote without its end")
		}
		words = append(words, string(word))
	}
	if len(words) == 0 {
		return nil, errors.New("powershell: the line calls nothing")
	}
	return words, nil
}

// isQuote reports whether PowerShell takes it for a single quote.
func isQuote(r rune) bool { return strings.ContainsRune("'‘’‚‛", r) }
