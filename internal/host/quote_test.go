package host

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/host/sshserver"
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
		{Cmd, []string{"httpd.exe", `C:\a b\`, `say "x"`, "%PATH%", "a&b"}, `httpd.exe ^"C:\a b\\^" ^"say \^"x\^"^" ^%^PATH^% a^&b`},
		{Posix, []string{"if", "if"}, "'if' if"},
		{Cmd, []string{"x", ""}, `x ^"^"`},
		{Cmd, []string{"C:/Program Files (x86)/Apache24/bin/httpd.exe", "-t"}, `"C:\Program Files (x86)\Apache24\bin\httpd.exe" -t`},
		{Cmd, []string{"C:/Apache24/bin/httpd.exe", "-f", "C:/a b"}, `C:\Apache24\bin\httpd.exe -f ^"C:/a b^"`},
		{Cmd, []string{"x", "100%", "50%!"}, `x 100^% 50^%^!`},
		{PowerShell, []string{"nginx", "it's", "’"}, "$LASTEXITCODE = 0; & 'nginx' 'it''s' '’’'; if ($?) { exit 0 }; if ($LASTEXITCODE) { exit $LASTEXITCODE }; exit 1"},
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
		{Cmd, []string{`a"b`}}, {Cmd, []string{"%A%.exe"}}, {Cmd, []string{"a\tb"}},
		{PowerShell, []string{"a", ""}}, {PowerShell, []string{"a", `"`}}, {PowerShell, []string{"a", `b c\`}},
	} {
		if got, err := Quote(c.shell, c.argv); err == nil {
			t.Errorf("%s %q passed as %s", c.shell, c.argv, got)
		}
	}
}

// hardWords are what shells of Windows make something else of.
var hardWords = []string{
	"a b", "", " ", `\`, `\\"`, `"`, `""`, `a"b`, `C:\a b\`, `\\server\share\`, "%A%", "%PATH%", "%PATH:a=b%", "%PATH:~0,3%", "%%", "%", "100%", "%A",
	"^", "^^", "a^b", "a&b|c", "a & b", "<x>", "(x)", "!v!", "'", "’", "$x", "`", ";", ",", "=", "@", "#", "{}", "-n", "/c", "æøå", "\t", "*?", "~",
}

// variables are those that a node may have.
var variables = map[string]string{"PATH": `C:\Windows`, "A": "expanded"}

// words come out of a line as they went in.
func wordsSurvive(t *testing.T, shell string, argv []string, apart func(line string) ([]string, error)) {
	t.Helper()
	line, err := Quote(shell, argv)
	if err != nil {
		return
	}
	got, err := apart(line)
	if err != nil || !slices.Equal(got, argv) {
		t.Fatalf("%q came out as %q (%v) from %s", argv, got, err, line)
	}
}

func cmdWords(line string) ([]string, error) { return sshserver.CmdWords(`"`+line+`"`, variables) }

// FuzzQuoteWindows takes the lines apart as Windows' shells and the program do.
func FuzzQuoteWindows(f *testing.F) {
	for _, w := range hardWords {
		f.Add(w, "x"+w)
		f.Add(w+w, w)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		wordsSurvive(t, Cmd, []string{"p", a, b, a}, cmdWords)
		wordsSurvive(t, Cmd, []string{`C:\Program Files\p & q.exe`, a, b}, cmdWords)
		wordsSurvive(t, PowerShell, []string{"p", a, b, a}, sshserver.PowerShellWords)
		wordsSurvive(t, PowerShell, []string{"C:/Program Files/p & q.exe", b}, sshserver.PowerShellWords)
	})
}

// What goes through the shells of Windows is refused or unchanged, and only what
// cannot be passed is refused.
func TestWordsThatWindowsCannotPass(t *testing.T) {
	for _, word := range hardWords {
		if _, err := Quote(Cmd, []string{"p", word}); err != nil {
			t.Errorf("cmd: %q: %v", word, err)
		}
		_, err := Quote(PowerShell, []string{"p", word})
		if hard := word == "" || strings.Contains(word, `"`) || (strings.HasSuffix(word, `\`) && strings.Contains(word, " ")); (err != nil) != hard {
			t.Errorf("powershell: %q: %v", word, err)
		}
	}
}

// The model of cmd.exe tells a line that is quoted badly.
func TestModelOfCmd(t *testing.T) {
	for line, want := range map[string]string{
		`p %A%`: "p|expanded", `p ^%A^%`: "p|%A%", `p "a b" c`: "p|a b|c", `p "%A%"`: "p|expanded",
		`p ^%PATH:a=b^%`: `p|C:\Windows`, `p \\"a b\\"`: `p|\a b\`, `"C:\a b\p" x`: `C:\a b\p|x`,
	} {
		if got, err := cmdWords(line); err != nil || strings.Join(got, "|") != want {
			t.Errorf("%s: got %q (%v), want %s", line, got, err, want)
		}
	}
	for _, line := range []string{"p a&b", "p >x", "p | q", "C:/a/p.exe -t"} {
		if got, err := cmdWords(line); err == nil {
			t.Errorf("%s passed as %q", line, got)
		}
	}
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
