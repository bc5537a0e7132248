package host

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// FuzzQuotePosix asks the real shells what they make of a quoted line.
func FuzzQuotePosix(f *testing.F) {
	for _, s := range []string{"a b", "", "'", "\\", "$HOME", "`id`", "a\nb", "*", "~", "-n", "\xff\xfe", "!!", "%s", "\r\t", "=x", "a=b"} {
		f.Add(s, "x"+s)
	}
	var shells []string
	for _, s := range []string{"sh", "bash", "dash", "ksh", "zsh", "busybox"} {
		if path, err := exec.LookPath(s); err == nil {
			shells = append(shells, path)
		}
	}
	if len(shells) == 0 {
		f.Skip("no POSIX shell here")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		line, err := Quote(Posix, []string{"printf", `%s\0`, a, b})
		if strings.ContainsRune(a+b, 0) {
			if err == nil {
				t.Fatal("a NUL byte passed")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, shell := range shells {
			argv := []string{shell, "-c", line}
			if strings.HasSuffix(shell, "busybox") {
				argv = []string{shell, "sh", "-c", line}
			}
			got, err := exec.Command(argv[0], argv[1:]...).Output()
			if want := a + "\x00" + b + "\x00"; err != nil || string(got) != want {
				t.Fatalf("%s gave %q (%v) for %q", shell, got, err, line)
			}
		}
	})
}

func TestQuote(t *testing.T) {
	for _, c := range []struct {
		shell string
		argv  []string
		want  string
	}{
		{"", []string{"nginx", "-s", "reload"}, "nginx -s reload"},
		{Posix, []string{"a b", "it's", ""}, `'a b' 'it'\''s' ''`},
		{Cmd, []string{"httpd.exe", `C:\a b\`, `say "x"`, "%PATH%", "a&b"}, `httpd.exe ^"C:\a b\\^" ^"say \^"x\^"^" ^%PATH^% a^&b`},
		{Posix, []string{"if", "if"}, "'if' if"},
		{Cmd, []string{"x", ""}, `x ^"^"`},
		{PowerShell, []string{"nginx", "it's", "’"}, "& 'nginx' 'it''s' '’’'; exit $LASTEXITCODE"},
	} {
		if got, err := Quote(c.shell, c.argv); got != c.want || err != nil {
			t.Errorf("%s %q: got %s (%v), want %s", c.shell, c.argv, got, err, c.want)
		}
	}
	for _, c := range []struct {
		shell string
		argv  []string
	}{
		{Posix, nil}, {Posix, []string{""}}, {Posix, []string{"a", "\x00"}}, {"fish", []string{"a"}}, {Cmd, []string{"a", "b\nc"}},
		{PowerShell, []string{"a", ""}}, {PowerShell, []string{"a", `"`}}, {PowerShell, []string{"a", `b c\`}},
	} {
		if got, err := Quote(c.shell, c.argv); err == nil {
			t.Errorf("%s %q passed as %s", c.shell, c.argv, got)
		}
	}
}

// FuzzQuoteCmd takes the line apart as cmd.exe and the program do.
func FuzzQuoteCmd(f *testing.F) {
	for _, s := range []string{"a b", "", `\`, `\\"`, `"`, "%A%", "^", "a&b|c", `\ `, "(x)", "!v!"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, word string) {
		line, err := Quote(Cmd, []string{"p", word})
		if err != nil {
			return
		}
		var plain strings.Builder
		for i := 0; i < len(line); i++ {
			if line[i] == '^' {
				i++
			} else if strings.IndexByte(`()%!"<>&|`, line[i]) >= 0 {
				t.Fatalf("%q has an open %q", line, line[i])
			}
			plain.WriteByte(line[i])
		}
		if got := unArgvW(strings.TrimPrefix(plain.String(), "p ")); got != word {
			t.Fatalf("%q came out as %q from %q", word, got, line)
		}
	})
}

// unArgvW is CommandLineToArgvW for one word.
func unArgvW(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		n := i
		for n < len(s) && s[n] == '\\' {
			n++
		}
		slashes := n - i
		switch {
		case n < len(s) && s[n] == '"':
			b.WriteString(strings.Repeat(`\`, slashes/2))
			if slashes%2 == 1 {
				b.WriteByte('"')
			}
			i = n
		case slashes > 0:
			b.WriteString(s[i:n])
			i = n - 1
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func TestOutputKeepsTheEnd(t *testing.T) {
	var o Output
	for range 5 {
		_, _ = o.Write(bytes.Repeat([]byte("x"), 50<<10))
	}
	_, _ = o.Write([]byte("end"))
	if got := o.Bytes(); len(got) != MaxOutput || !bytes.HasSuffix(got, []byte("xend")) {
		t.Fatalf("kept %d bytes, ending %q", len(got), got[len(got)-4:])
	}
}
