package host

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The shells that a node may speak, as farm.Node.Shell names them.
const (
	Posix      = "posix"
	Cmd        = "cmd"
	PowerShell = "powershell"
)

// reserved are the words that start something else than a command in POSIX
// shells (Shell Command Language §2.4) when they stand first and unquoted.
var reserved = strings.Fields("if then else elif fi do done case esac while until for in function select time coproc")

// Quote writes a command as one line that the named shell takes apart into the
// same words. An empty shell is a POSIX one. A word that the shell cannot pass
// on unchanged is an error: nothing is sent then.
func Quote(shell string, argv []string) (string, error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", fmt.Errorf("quoting a command: there is none")
	}
	quote, known := map[string]func(string) (string, error){
		"": quotePosix, Posix: quotePosix, Cmd: quoteCmd, PowerShell: quotePowerShell,
	}[shell]
	if !known {
		return "", fmt.Errorf("quoting %s: no shell %q; there are %s, %s and %s", argv[0], shell, Posix, Cmd, PowerShell)
	}
	words := make([]string, len(argv))
	for i, word := range argv {
		quote := quote
		if i == 0 && shell == Cmd {
			quote = quoteProgram
		}
		quoted, err := quote(word)
		if err != nil {
			return "", fmt.Errorf("quoting word %d of %s for %s: %w", i+1, argv[0], shell, err)
		}
		words[i] = quoted
	}
	if shell != Cmd && slices.Contains(reserved, words[0]) {
		words[0] = "'" + words[0] + "'"
	}
	line := strings.Join(words, " ")
	if shell == PowerShell {
		line = "$LASTEXITCODE = 0; & " + line + afterwards
	}
	return line, nil
}

// afterwards ends PowerShell with the command's own status. A command that is not
// found, or one of PowerShell's own that fails, sets no status: without this the line
// would end as a success.
const afterwards = "; if ($?) { exit 0 }; if ($LASTEXITCODE) { exit $LASTEXITCODE }; exit 1"

// quotePosix uses single quotes, in which no character is special but the
// quote itself (POSIX.1-2024, Shell Command Language §2.2.2). Plain words stay
// as they are, so that a forced command may compare the line.
func quotePosix(word string) (string, error) {
	if strings.ContainsRune(word, 0) {
		return "", fmt.Errorf("it holds a NUL byte")
	}
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,+@%") == "" {
		return word, nil
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'", nil
}

// quoteCmd quotes twice: for the program's own parser (CommandLineToArgvW),
// then with carets for cmd.exe, so that no quote is open when cmd reads the line
// and every caret counts. Variables are expanded before carets are read: a caret on
// either side of the text between two percent signs makes it no variable's name, nor
// one with a substitution such as %PATH:a=b%.
func quoteCmd(word string) (string, error) {
	if i := strings.IndexAny(word, "\x00\r\n"); i >= 0 {
		return "", fmt.Errorf("it holds the byte %#02x, which ends a line", word[i])
	}
	if !utf8.ValidString(word) {
		return "", fmt.Errorf("it is not UTF-8, which Windows needs")
	}
	var b strings.Builder
	percent := false
	for _, r := range argvW(word) {
		if percent || strings.ContainsRune(`()%!^"<>&|`, r) {
			b.WriteByte('^')
		}
		percent = r == '%'
		b.WriteRune(r)
	}
	return b.String(), nil
}

// quoteProgram quotes the first word for cmd.exe, which looks for a program up to
// the first slash, and takes a quote with a caret for a part of its name.
func quoteProgram(word string) (string, error) {
	name := strings.ReplaceAll(word, "/", `\`)
	if strings.ContainsFunc(name, unicode.IsControl) || strings.ContainsAny(name, `"%`) || !utf8.ValidString(name) {
		return "", fmt.Errorf("it holds a double quote, a percent sign or a control character, which no program's name may have for cmd.exe")
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:\\") == "" {
		return name, nil
	}
	return `"` + name + `"`, nil
}

// argvW quotes a word for CommandLineToArgvW: backslashes count only before a
// quote, where each is doubled.
func argvW(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\"") {
		return word
	}
	var b strings.Builder
	b.WriteByte('"')
	slashes := 0
	for i := range len(word) {
		switch word[i] {
		case '\\':
			slashes++
		case '"':
			b.WriteString(strings.Repeat(`\`, slashes+1))
			slashes = 0
		default:
			slashes = 0
		}
		b.WriteByte(word[i])
	}
	b.WriteString(strings.Repeat(`\`, slashes) + `"`)
	return b.String()
}

// quotePowerShell uses single quotes; the typographic ones count as such there.
// Windows PowerShell 5.1 drops empty words and double quotes on the way to a
// program and 7.3 does not, so no form is right for both: they are refused.
func quotePowerShell(word string) (string, error) {
	switch {
	case !utf8.ValidString(word):
		return "", fmt.Errorf("it is not UTF-8, which Windows needs")
	case word == "":
		return "", fmt.Errorf("it is empty, which PowerShell 5.1 leaves out")
	case strings.ContainsAny(word, "\x00\r\n\""):
		return "", fmt.Errorf("it holds a double quote, a line end or a NUL byte, which PowerShell 5.1 changes")
	case strings.HasSuffix(word, `\`) && strings.ContainsFunc(word, unicode.IsSpace):
		return "", fmt.Errorf("it ends in a backslash after a space, which PowerShell 5.1 changes")
	}
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range word {
		if slices.Contains([]rune("'‘’‚‛"), r) {
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String(), nil
}
